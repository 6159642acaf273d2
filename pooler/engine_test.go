package pooler_test

import (
	"fmt"
	"net"
	"os"

	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/backend"
	"github.com/armordb/armordb/pooler/portable"
)

// engine is the driver that the houses of a test run have. ARMOR_TEST_DRIVER chooses
// it: "portable" (the default) or "loop".
type engine struct {
	driver pooler.Driver
	// client is what a client's connection runs over, below TLS if there is TLS.
	client func(c net.Conn, tls bool) net.Conn
	dial   backend.Dial // nil: the default
	stop   func()
}

var engines = map[string]func() (engine, error){
	"":         portableEngine,
	"portable": portableEngine,
}

func portableEngine() (engine, error) {
	same := func(c net.Conn, _ bool) net.Conn { return c }
	return engine{driver: portable.New(), client: same, stop: func() {}}, nil
}

func newEngine() (engine, error) {
	name := os.Getenv("ARMOR_TEST_DRIVER")
	make, ok := engines[name]
	if !ok {
		return engine{}, fmt.Errorf("ARMOR_TEST_DRIVER=%q: there is no such driver here", name)
	}
	return make()
}
