// Benthos with the components that the benchmark uses, which is built in a minute.
package main

import (
	"context"
	"net/http"

	"github.com/benthosdev/benthos/v4/public/service"

	_ "github.com/benthosdev/benthos/v4/public/components/io"
	_ "github.com/benthosdev/benthos/v4/public/components/kafka"
	_ "github.com/benthosdev/benthos/v4/public/components/pure"
)

func main() {
	// By default Go keeps two idle connections to a host, and closes all others after each answer.
	http.DefaultTransport.(*http.Transport).MaxIdleConnsPerHost = 1024
	http.DefaultTransport.(*http.Transport).MaxIdleConns = 1024
	service.RunCLI(context.Background())
}
