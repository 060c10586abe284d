package rest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/intermodal-go/intermodal/rest"
	"github.com/intermodal-go/intermodal/transport"
)

type Reservation struct {
	ID    int64  `json:"id"`
	Name  string `json:"name" jsonschema:"Who will come."`
	Seats uint8  `json:"seats,omitempty"`
}

var reserve = transport.Operation[Reservation, Reservation]{Topic: "reservations.make"}

func reservationRoutes() []rest.Route {
	r := rest.For(reserve, "POST /reservations")
	r.Location = "/reservations/{id}"
	r.Summary = "Reserves seats"
	return []rest.Route{r}
}

func ExampleOpenAPI() {
	doc, err := rest.OpenAPI(rest.Info{Title: "Restaurant", Version: "1.0.0"}, reservationRoutes()...)
	if err != nil {
		fmt.Println(err)
		return
	}
	var d struct {
		OpenAPI    string
		Paths      map[string]map[string]struct{ OperationID, Summary string }
		Components struct{ Schemas map[string]json.RawMessage }
	}
	if err := json.Unmarshal(doc, &d); err != nil {
		fmt.Println(err)
		return
	}
	o := d.Paths["/reservations"]["post"]
	fmt.Printf("%s: %s (%s)\n", d.OpenAPI, o.Summary, o.OperationID)
	_, both := d.Components.Schemas["ReservationInput"]
	fmt.Println("a request may leave members out:", both)
	// Output:
	// 3.1.0: Reserves seats (reservations.make)
	// a request may leave members out: true
}

// The document is in a file that reviewers see, and a test keeps the two together.
func ExampleOpenAPIUpToDate() {
	dir, err := os.MkdirTemp("", "openapi")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	info := rest.Info{Title: "Restaurant", Version: "1.0.0"}
	file := filepath.Join(dir, "openapi.json")

	doc, err := rest.OpenAPI(info, reservationRoutes()...) // as with the flag -update
	if err == nil {
		err = os.WriteFile(file, doc, 0o600)
	}
	fmt.Println(err, rest.OpenAPIUpToDate(file, info, reservationRoutes()...))

	changed := reservationRoutes()
	changed[0].RequireKey = true
	err = rest.OpenAPIUpToDate(file, info, changed...)
	fmt.Println("out of date:", transport.CodeOf(err))
	// Output:
	// <nil> <nil>
	// out of date: failed_precondition
}
