package harbour_test

import (
	"bytes"
	"go/parser"
	"go/token"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/examples/jobs/harbour"
	"github.com/intermodal-go/intermodal/transport/transporttest/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

var testdata = os.DirFS("../testdata")

func TestMakeThumbnail(t *testing.T) {
	small, err := harbour.MakeThumbnail(testdata, harbour.Picture{File: "harbour.jpg", Width: 160})
	require.NoError(t, err)
	require.Equal(t, 160, small.Width)
	require.Equal(t, 100, small.Height)
	img, format, err := image.Decode(bytes.NewReader(small.PNG))
	require.NoError(t, err)
	require.Equal(t, "png", format)
	require.Equal(t, image.Rect(0, 0, 160, 100), img.Bounds())
	r, g, b, _ := img.At(116, 50).RGBA()
	require.True(t, r > 0xf000 && g > 0xe000 && b > 0xb000, "the sun is bright")
}

// files has one picture whose left half is black and whose right half is white.
func files(t *testing.T, encode func(*bytes.Buffer, image.Image) error) fs.FS {
	img := image.NewGray(image.Rect(3, 5, 13, 9)) // 10x4, and not at the origin
	for y := 5; y < 9; y++ {
		for x := 8; x < 13; x++ {
			img.SetGray(x, y, color.Gray{255})
		}
	}
	var b bytes.Buffer
	require.NoError(t, encode(&b, img))
	return fstest.MapFS{"a": {Data: b.Bytes()}}
}

func TestThumbnailsAreMeans(t *testing.T) {
	for name, encode := range map[string]func(*bytes.Buffer, image.Image) error{
		"png":  func(b *bytes.Buffer, img image.Image) error { return png.Encode(b, img) },
		"jpeg": func(b *bytes.Buffer, img image.Image) error { return jpeg.Encode(b, img, &jpeg.Options{Quality: 100}) },
	} {
		from := files(t, encode)
		for width, want := range map[int][]uint8{
			1: {127}, 2: {0, 255}, 4: {0, 51, 170, 255}, 10: {0, 0, 0, 0, 0, 255, 255, 255, 255, 255}} {
			small, err := harbour.MakeThumbnail(from, harbour.Picture{File: "a", Width: width})
			require.NoError(t, err)
			img, err := png.Decode(bytes.NewReader(small.PNG))
			require.NoError(t, err)
			require.Equal(t, max(1, 4*width/10), img.Bounds().Dy())
			for x := range width {
				if width == 4 && x > 0 && x < 3 {
					continue // split unevenly
				}
				got := color.GrayModel.Convert(img.At(x, 0)).(color.Gray).Y
				require.InDelta(t, want[x], got, 3, "%s %d %d", name, width, x)
			}
		}
	}
}

func TestNoThumbnail(t *testing.T) {
	from := files(t, func(b *bytes.Buffer, img image.Image) error { return png.Encode(b, img) })
	for _, width := range []int{-1, 0, 11} {
		_, err := harbour.MakeThumbnail(from, harbour.Picture{File: "a", Width: width})
		require.ErrorIs(t, err, harbour.ErrPicture)
	}
	whole, err := fs.ReadFile(from, "a")
	require.NoError(t, err)
	for _, data := range []string{"", "text", string(whole[:40])} {
		_, err := harbour.MakeThumbnail(fstest.MapFS{"a": {Data: []byte(data)}}, harbour.Picture{File: "a", Width: 1})
		require.ErrorIs(t, err, harbour.ErrPicture)
	}
	_, err = harbour.MakeThumbnail(from, harbour.Picture{File: "b", Width: 1})
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestWeigh(t *testing.T) {
	var seen []int
	progress := func(done, total int) error {
		require.Equal(t, 3, total)
		seen = append(seen, done)
		return nil
	}
	manifest := "container,goods,destination,kilograms\na,salt,Riga,100\n\"b, new\",tiles,Turku,300\nc,wool,Riga,200\n"
	c, err := harbour.Weigh(fstest.MapFS{"m": {Data: []byte(manifest)}}, "m", progress)
	require.NoError(t, err)
	require.Equal(t, harbour.Cargo{Containers: 3, Kilograms: 600, Heaviest: "b, new"}, c)
	require.Equal(t, []int{1, 2, 3}, seen)

	for _, bad := range []string{"", "container,goods,destination,kilograms\n", "a,b\nc,d\n",
		"a,b,c,d\n1,2,3,heavy\n", "a,b,c,d\n1,2\n", "\"\n"} {
		_, err := harbour.Weigh(fstest.MapFS{"m": {Data: []byte(bad)}}, "m", progress)
		require.ErrorIs(t, err, harbour.ErrManifest)
	}
	_, err = harbour.Weigh(fstest.MapFS{}, "m", progress)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = harbour.Weigh(testdata, "manifest.csv", func(done, _ int) error {
		if done == 7 {
			return fs.ErrClosed
		}
		return nil
	})
	require.ErrorIs(t, err, fs.ErrClosed, "progress that fails ends it")
}

func TestFiles(t *testing.T) {
	files := fstest.MapFS{"a": {Data: []byte("one two\nthree")}, "b": {Data: []byte(strings.Repeat("again ", 1000))}}
	n, err := harbour.Words(files, "a")
	require.NoError(t, err)
	require.Equal(t, 3, n)
	sum, err := harbour.Checksum(fstest.MapFS{"a": {Data: []byte("abc")}}, "a")
	require.NoError(t, err)
	require.Equal(t, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", sum, "FIPS 180-2, B.1")
	p, err := harbour.Pack(files, "b")
	require.NoError(t, err)
	require.Equal(t, 6000, p.Before)
	require.Less(t, p.After, 100)
	_, err = harbour.Words(files, "c")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = harbour.Checksum(files, "c")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = harbour.Pack(files, "c")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestFetch(t *testing.T) {
	status := http.StatusOK
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		w.Write([]byte("four words and one"))
	}))
	defer web.Close()
	n, err := harbour.Fetch(t.Context(), web.URL)
	require.NoError(t, err)
	require.Equal(t, 4, n)
	status = http.StatusServiceUnavailable
	_, err = harbour.Fetch(t.Context(), web.URL)
	require.ErrorIs(t, err, harbour.ErrBusy)
	status = http.StatusNotFound
	_, err = harbour.Fetch(t.Context(), web.URL)
	require.EqualError(t, err, "404 Not Found")
	_, err = harbour.Fetch(t.Context(), ":")
	require.Error(t, err)
	_, err = harbour.Fetch(t.Context(), "http://127.0.0.1:1")
	require.Error(t, err)
}

func TestImportsTheStandardLibraryOnly(t *testing.T) {
	for _, name := range []string{"picture.go", "paper.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, i := range file.Imports {
			require.NotContains(t, i.Path.Value, ".", "%s imports more than the standard library", name)
		}
	}
}

func FuzzMakeThumbnail(f *testing.F) {
	img := image.NewGray(image.Rect(0, 0, 8, 8))
	var small bytes.Buffer
	require.NoError(f, png.Encode(&small, img))
	f.Add(small.Bytes(), 4)
	small.Reset()
	require.NoError(f, jpeg.Encode(&small, img, nil))
	f.Add(small.Bytes(), 3)
	f.Add([]byte("\x89PNG\r\n\x1a\n"), 1)
	f.Fuzz(func(t *testing.T, data []byte, width int) {
		small, err := harbour.MakeThumbnail(fstest.MapFS{"a": {Data: data}}, harbour.Picture{File: "a", Width: width})
		if err == nil {
			require.Equal(t, width, small.Width)
		}
	})
}

func FuzzWeigh(f *testing.F) {
	f.Add("container,goods,destination,kilograms\na,salt,Riga,100\n")
	f.Fuzz(func(t *testing.T, manifest string) {
		n := 0
		c, err := harbour.Weigh(fstest.MapFS{"m": {Data: []byte(manifest)}}, "m", func(int, int) error { n++; return nil })
		if err == nil {
			require.Equal(t, n, c.Containers)
		}
	})
}
