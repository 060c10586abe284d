package main

import (
	"embed"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

//go:embed testdata/*.jpg testdata/*.csv testdata/*.txt
var embedded embed.FS

// deliver puts files that come with the program where the workers look for them.
func deliver(dir string, names ...string) error {
	for _, name := range names {
		data, err := embedded.ReadFile("testdata/" + name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// shelf are files. It counts how often a picture is opened.
type shelf struct {
	fs.FS
	pictures atomic.Int32
}

func (s *shelf) Open(name string) (fs.File, error) {
	if strings.HasSuffix(name, ".jpg") {
		s.pictures.Add(1)
	}
	return s.FS.Open(name)
}

// overloaded starts a web server that has no time for the first n requests and answers the others with a file.
func overloaded(n int32, file string) (url string, stop func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	var requests atomic.Int32
	answer := func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) <= n {
			http.Error(w, "come back later", http.StatusServiceUnavailable)
			return
		}
		http.ServeFileFS(w, r, embedded, "testdata/"+file)
	}
	web := &http.Server{Handler: http.HandlerFunc(answer), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(l) }()
	stop = func() error {
		err := web.Close()
		if serr := <-served; serr != http.ErrServerClosed {
			err = errors.Join(err, serr)
		}
		return err
	}
	return "http://" + l.Addr().String(), stop, nil
}
