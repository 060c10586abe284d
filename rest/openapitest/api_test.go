package openapitest

import (
	"context"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/rest"
	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

type (
	User struct {
		ID      string    `json:"id" jsonschema:"The server gives it."`
		Name    string    `json:"name"`
		Email   *string   `json:"email"`
		Created time.Time `json:"created"`
		Manager *User     `json:"manager,omitempty"`
	}
	UserID struct {
		ID string `json:"id"`
	}
	Paging struct {
		After string `json:"after,omitempty"`
		Limit int32  `json:"limit,omitempty" jsonschema:"At most so many."`
	}
	ListUsers struct {
		Paging
		Name   string     `json:"name,omitempty" jsonschema:"Only users whose name begins so."`
		Roles  []string   `json:"roles,omitempty"`
		Since  *time.Time `json:"since,omitempty"`
		Active bool       `json:"active,omitempty"`
		Filter struct {
			Status string `json:"status,omitempty"`
			Levels []int8 `json:"levels,omitempty"`
		} `json:"filter,omitzero"`
		Labels map[string]string `json:"labels,omitempty"`
	}
	Page[T any] struct {
		Items []T       `json:"items"`
		Next  string    `json:"next,omitempty"`
		Asked ListUsers `json:"asked"`
	}
	Line struct {
		SKU      string `json:"sku"`
		Quantity uint16 `json:"quantity"`
	}
	PlaceOrder struct {
		User   string `json:"user"`
		Lines  []Line `json:"lines"`
		DryRun bool   `json:"dryRun,omitempty"`
	}
	Order struct {
		ID    int64    `json:"id"`
		User  string   `json:"user"`
		Lines []Line   `json:"lines"`
		Note  any      `json:"note,omitempty"`
		Parts []*Order `json:"parts"`
		Raw   []byte   `json:"raw"`
	}
	CancelOrder struct {
		ID     int64  `json:"id"`
		Reason string `json:"reason,omitempty"`
	}
	File struct {
		Path    string `json:"path"`
		Content []byte `json:"content"`
		Public  bool   `json:"public"`
	}
	Stored struct {
		Path   string `json:"path"`
		Bytes  int    `json:"bytes"`
		Public bool   `json:"public"`
	}
	Placed struct {
		Order int64     `json:"order"`
		At    time.Time `json:"at"`
	}
)

var (
	listUsers   = transport.Operation[ListUsers, Page[User]]{Topic: "users.list"}
	getUser     = transport.Operation[UserID, User]{Topic: "users.get"}
	createUser  = transport.Operation[User, User]{Topic: "users.create"}
	replaceUser = transport.Operation[User, User]{Topic: "users.replace"}
	removeUser  = transport.Operation[UserID, struct{}]{Topic: "users.remove"}
	placeOrder  = transport.Operation[PlaceOrder, Order]{Topic: "orders.place"}
	cancelOrder = transport.Operation[CancelOrder, Order]{Topic: "orders.cancel"}
	putFile     = transport.Operation[File, Stored]{Topic: "files.put"}
	orderPlaced = transport.Event[Placed]{Topic: "orders.placed"}
)

var info = rest.Info{Title: "Shop", Version: "1.2.0", Description: "Users, orders and files."}

func routes() []rest.Route {
	list := rest.For(listUsers, "GET /users")
	list.Summary = "Lists users"
	get := rest.For(getUser, "GET /users/{id}")
	get.Example = UserID{"ada"}
	create := rest.For(createUser, "POST /users")
	create.Location, create.RequireKey, create.Statuses = "/users/{id}", true, map[string]int{"TAKEN": 409}
	create.Example = User{Name: "Ada"}
	replace := rest.For(replaceUser, "PUT /users/{id}")
	replace.RequireMatch = true
	remove := rest.For(removeUser, "DELETE /users/{id}")
	place := rest.For(placeOrder, "POST /users/{user}/orders")
	cancel := rest.For(cancelOrder, "POST /orders/{id}:cancel")
	cancel.Statuses = map[string]int{"SHIPPED": 409}
	put := rest.For(putFile, "PUT /files/{path...}")
	put.Body = "content"
	read := rest.Route{Topic: "files.read", Pattern: "GET /files/{name...}"}
	event := rest.ForEvent(orderPlaced, "POST /events/orders.placed")
	old := rest.For(getUser, "GET /v1/users/{id}")
	old.Deprecated, old.Sunset = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	return []rest.Route{list, get, create, replace, remove, place, cancel, put, read, event, old}
}

// shop is what stands behind the server.
type shop struct {
	mu     sync.Mutex
	events []Placed
}

var adasMail = "ada@example.com"

func (s *shop) mux() transport.Mux {
	ada := User{ID: "ada", Name: "Ada", Email: &adasMail, Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Manager: &User{ID: "boss", Name: "Boss"}}
	return transport.Mux{
		listUsers.Topic: listUsers.Handler(func(_ context.Context, in ListUsers) (Page[User], error) {
			if in.Name == "nobody" {
				return Page[User]{Asked: in}, nil
			}
			return Page[User]{Items: []User{ada}, Asked: in}, nil
		}),
		getUser.Topic: getUser.Handler(func(_ context.Context, in UserID) (User, error) {
			if in.ID != "ada" {
				return User{}, &transport.Error{Code: transport.CodeNotFound, Reason: "NO_USER", Message: "there is no such user",
					Details: []transport.Detail{{Type: "user", Value: []byte(in.ID)}}}
			}
			return ada, nil
		}),
		createUser.Topic: createUser.Handler(func(_ context.Context, in User) (User, error) {
			if in.Name == "Ada" {
				return User{}, &transport.Error{Code: transport.CodeAlreadyExists, Reason: "TAKEN", Message: "there is an Ada"}
			}
			in.ID = strings.ToLower(in.Name)
			return in, nil
		}),
		replaceUser.Topic: replaceUser.Handler(func(ctx context.Context, in User) (User, error) {
			if transport.MessageFrom(ctx).Header.Get("if-match") != `"7"` {
				return User{}, &transport.Error{Code: transport.CodeAborted, Message: "somebody was faster",
					Header: transport.Header{wire.HeaderStatus: {"412"}}}
			}
			transport.ReplyHeader(ctx).Set(wire.HeaderETag, `"8"`)
			return in, nil
		}),
		removeUser.Topic: removeUser.Handler(func(context.Context, UserID) (struct{}, error) { return struct{}{}, nil }),
		placeOrder.Topic: placeOrder.Handler(func(_ context.Context, in PlaceOrder) (Order, error) {
			return Order{ID: 7, User: in.User, Lines: in.Lines, Note: map[string]any{"dry": in.DryRun}}, nil
		}),
		cancelOrder.Topic: cancelOrder.Handler(func(_ context.Context, in CancelOrder) (Order, error) {
			if in.ID == 9 {
				return Order{}, &transport.Error{Code: transport.CodeFailedPrecondition, Reason: "SHIPPED", RetryAfter: 1500 * time.Millisecond}
			}
			return Order{ID: in.ID, User: in.Reason, Parts: []*Order{nil, {ID: 1}}, Raw: []byte("raw")}, nil
		}),
		putFile.Topic: putFile.Handler(func(_ context.Context, in File) (Stored, error) {
			return Stored{in.Path, len(in.Content), in.Public}, nil
		}),
		"files.read": func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			return &transport.Message{Header: transport.Header{"content-type": {"text/plain; charset=utf-8"}}, Body: m.Body}, nil
		},
		orderPlaced.Topic: orderPlaced.Handler(func(_ context.Context, e Placed) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.events = append(s.events, e)
			return nil
		}),
	}
}

// serve returns the URL of a server of s.
func serve(t *testing.T, s *shop) string {
	t.Helper()
	server, err := rest.NewServer(s.mux(), &rest.Options{Routes: routes(), RoutesOnly: true, Info: &info})
	require.NoError(t, err)
	h := httptest.NewServer(server)
	t.Cleanup(func() {
		h.Close()
		require.NoError(t, server.Shutdown(context.Background()))
	})
	return h.URL
}
