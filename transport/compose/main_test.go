package compose_test

import (
	"testing"

	"github.com/intermodal-go/intermodal/transport/transporttest"
)

func TestMain(m *testing.M) { transporttest.Main(m) }
