package ws_test

import (
	"testing"

	"github.com/intermodal-go/intermodal/transport/transporttest/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }
