package harbour

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
)

// ErrManifest is in the tree of errors about a manifest that cannot be read.
var ErrManifest = errors.New("not a manifest")

// A Cargo is what a manifest comes to.
type Cargo struct {
	Containers int    `json:"containers"`
	Kilograms  int    `json:"kilograms"`
	Heaviest   string `json:"heaviest"`
}

// Weigh adds up a manifest. It tells progress after each container.
func Weigh(files fs.FS, name string, progress func(done, total int) error) (c Cargo, err error) {
	f, err := files.Open(name)
	if err != nil {
		return c, err
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil || len(rows) < 2 || len(rows[0]) != 4 {
		return c, fmt.Errorf("%w: %v", ErrManifest, err)
	}
	rows, heaviest := rows[1:], 0
	for i, row := range rows {
		kilograms, err := strconv.Atoi(row[3])
		if err != nil {
			return c, fmt.Errorf("%w: %w", ErrManifest, err)
		}
		c.Containers++
		c.Kilograms += kilograms
		if kilograms > heaviest {
			heaviest, c.Heaviest = kilograms, row[0]
		}
		if err := progress(i+1, len(rows)); err != nil {
			return c, err
		}
	}
	return c, nil
}

// Checksum is the SHA-256 of a file, in hexadecimal.
func Checksum(files fs.FS, name string) (string, error) {
	data, err := fs.ReadFile(files, name)
	return fmt.Sprintf("%x", sha256.Sum256(data)), err
}

// Packed is what packing a file brings.
type Packed struct {
	Before int `json:"before"` // bytes
	After  int `json:"after"`
}

// Pack compresses a file.
func Pack(files fs.FS, name string) (Packed, error) {
	data, err := fs.ReadFile(files, name)
	if err != nil {
		return Packed{}, err
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(data) // into memory: it cannot fail
	if err := z.Close(); err != nil {
		return Packed{}, err
	}
	return Packed{Before: len(data), After: out.Len()}, nil
}

// Words counts the words of a file.
func Words(files fs.FS, name string) (int, error) {
	data, err := fs.ReadFile(files, name)
	return len(bytes.Fields(data)), err
}

// ErrBusy means that a server answered 503.
var ErrBusy = errors.New("the server is busy")

// Fetch counts the words of a page.
func Fetch(ctx context.Context, url string) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusServiceUnavailable:
		return 0, ErrBusy
	default:
		return 0, errors.New(response.Status)
	}
	page, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return len(bytes.Fields(page)), err
}
