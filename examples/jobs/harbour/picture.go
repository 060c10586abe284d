package harbour

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	_ "image/jpeg" // decodes what the cameras send
	"image/png"
	"io/fs"
)

// ErrPicture is in the tree of errors about what is no picture, or one that is too large.
var ErrPicture = errors.New("not a picture that can be made smaller")

// maxPixels bounds what a small file can unpack to.
const maxPixels = 1 << 24

// A Picture names a picture and the width that it shall have.
type Picture struct {
	File  string `json:"file"`
	Width int    `json:"width"`
}

// A Thumbnail is a small picture.
type Thumbnail struct {
	Width  int    `json:"width"`
	Height int    `json:"height"`
	PNG    []byte `json:"png"`
}

// MakeThumbnail makes a picture smaller. Each pixel is the mean of those that it stands for.
func MakeThumbnail(files fs.FS, p Picture) (Thumbnail, error) {
	data, err := fs.ReadFile(files, p.File)
	if err != nil {
		return Thumbnail{}, err
	}
	config, _, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return Thumbnail{}, fmt.Errorf("%w: %w", ErrPicture, err)
	}
	if p.Width < 1 || p.Width > config.Width || config.Width*config.Height > maxPixels {
		return Thumbnail{}, fmt.Errorf("%w: %dx%d to a width of %d", ErrPicture, config.Width, config.Height, p.Width)
	}
	img, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return Thumbnail{}, fmt.Errorf("%w: %w", ErrPicture, err)
	}
	small := shrink(img, p.Width)
	var out bytes.Buffer
	if err := png.Encode(&out, small); err != nil {
		return Thumbnail{}, err
	}
	return Thumbnail{Width: small.Rect.Dx(), Height: small.Rect.Dy(), PNG: out.Bytes()}, nil
}

func shrink(img image.Image, width int) *image.RGBA {
	from := img.Bounds()
	height := max(1, from.Dy()*width/from.Dx())
	small := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			small.SetRGBA(x, y, mean(img, image.Rect(
				from.Min.X+x*from.Dx()/width, from.Min.Y+y*from.Dy()/height,
				from.Min.X+(x+1)*from.Dx()/width, from.Min.Y+(y+1)*from.Dy()/height)))
		}
	}
	return small
}

// mean is the mean colour in area, which is not empty.
func mean(img image.Image, area image.Rectangle) color.RGBA {
	var sum [4]uint64
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			r, g, b, a := img.At(x, y).RGBA()
			for i, v := range [4]uint32{r, g, b, a} {
				sum[i] += uint64(v)
			}
		}
	}
	n := uint64(area.Dx()*area.Dy()) * 257 // of 65535 to of 255
	return color.RGBA{uint8(sum[0] / n), uint8(sum[1] / n), uint8(sum[2] / n), uint8(sum[3] / n)}
}
