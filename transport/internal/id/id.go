// Package id makes message IDs. It is apart from package transport so that the in-memory bus can write an ID
// into the allocation of the message that it names.
package id

import (
	"crypto/rand"
	"sync/atomic"
)

// Len is the length of every ID in bytes.
const Len = 22

const (
	prefixLen = 12 // 72 random bits: processes do not collide
	alphabet  = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
)

var (
	prefix  = newPrefix()
	counter atomic.Uint64
)

func newPrefix() (p [prefixLen]byte) {
	rand.Read(p[:]) // never fails: crypto/rand ends the program instead
	for i, b := range p {
		p[i] = alphabet[b&63]
	}
	// A leading hyphen would look like a flag on a command line.
	p[0] = alphabet[11+int(p[0])%26]
	return p
}

// Put writes a new ID into dst. IDs of one process sort in the order they were made.
func Put(dst *[Len]byte) {
	copy(dst[:prefixLen], prefix[:])
	n := counter.Add(1)
	for i := Len - 1; i >= prefixLen; i-- {
		dst[i] = alphabet[n&63]
		n >>= 6
	}
}
