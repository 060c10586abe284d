package jobs

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

func FuzzDeadLetter(f *testing.F) {
	f.Add("math.double", "3", "unavailable", "busy")
	f.Add("", "many", "code_99", "\x00")
	f.Add("", "-1", "ok", "")
	f.Fuzz(func(t *testing.T, name, attempts, code, reason string) {
		u := deadLetter(&transport.Message{ID: "1", Header: transport.Header{
			HeaderFunc: {name}, transport.HeaderDeadLetterAttempts: {attempts},
			transport.HeaderDeadLetterCode: {code}, transport.HeaderDeadLetterReason: {reason}}})
		require.Equal(t, "1", u.Job)
		require.Equal(t, Dead, u.State)
		require.NotZero(t, transport.CodeOf(u.Err()))
	})
}

func FuzzUpdate(f *testing.F) {
	f.Add([]byte(`{"job":"1","func":"f","state":"failed","attempt":2,"error":{"code":"not_found","message":"gone"}}`))
	f.Add([]byte(`{"state":"succeeded","result":null}`))
	f.Add([]byte(`{"state":"dead","error":null}`))
	f.Add([]byte(`{"error":{"code":7}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		u, err := Queue{Name: "q"}.Updates().Decode(&transport.Message{Body: body,
			Header: transport.Header{"content-type": {"application/json"}}})
		if err != nil {
			require.ErrorIs(t, err, transport.CodeInvalidArgument)
			return
		}
		if u.State == Dead || u.State == Canceled {
			require.Error(t, u.Err())
		}
		again, err := json.Marshal(u)
		require.NoError(t, err)
		var v Update
		require.NoError(t, json.Unmarshal(again, &v))
		require.Equal(t, u.State, v.State)
	})
}
