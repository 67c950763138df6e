// A handler of orders: go run handler.go PORT
//
// Standard library only. An order is JSON with a number under "order". To try the ladder out, one with "fail": N fails N times, and one
// with "wait": S asks for S seconds of patience the first time.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// A real handler keeps this where it keeps its orders, and writes both in one transaction.
var done sync.Map

var statuses = map[string]int{"done": 200, "retry": 503, "reject": 422}

type order struct {
	Order *int `json:"order"`
	Fail  int  `json:"fail"`
	Wait  *int `json:"wait"`
}

type outcome struct {
	verdict, class, retryAfter, text string
}

// keyOf gives the key as bytes; nil where there is none, or it was too long to be sent.
func keyOf(header http.Header) ([]byte, error) {
	values := header.Values("Kladder-Key")
	if len(values) == 0 {
		return nil, nil
	}
	if header.Get("Kladder-Key-Encoding") == "base64" {
		return base64.StdEncoding.DecodeString(values[0])
	}
	return []byte(values[0]), nil
}

// handle says what becomes of an order; a nil value is a tombstone.
func handle(key, value []byte, attempt int) outcome {
	if value == nil {
		return outcome{verdict: "done", text: "cancelled"}
	}
	var given order
	if err := json.Unmarshal(value, &given); err != nil || given.Order == nil {
		return outcome{verdict: "reject", class: "InvalidOrder", text: "no order"}
	}
	if attempt == 1 && given.Wait != nil {
		return outcome{verdict: "retry", class: "Busy", retryAfter: strconv.Itoa(*given.Wait), text: "come back later"}
	}
	if attempt <= given.Fail {
		return outcome{verdict: "retry", class: "OutOfStock", text: "not in stock"}
	}
	return outcome{verdict: "done", text: "shipped"}
}

func serve(response http.ResponseWriter, request *http.Request) {
	value, err := io.ReadAll(request.Body)
	if err != nil {
		return // The connection is lost; the record comes again.
	}
	size := strconv.Itoa(len(value))
	if request.Header.Get("Kladder-Value") == "null" {
		value, size = nil, "null"
	}
	attempt, attemptErr := strconv.Atoi(request.Header.Get("Kladder-Attempt"))
	key, keyErr := keyOf(request.Header)
	if err := errors.Join(attemptErr, keyErr); err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
		return
	}
	idempotencyKey := request.Header.Get("Idempotency-Key")
	result := outcome{verdict: "done", text: "done before"}
	if _, seen := done.Load(idempotencyKey); !seen {
		result = handle(key, value, attempt)
	}
	if result.verdict == "done" {
		done.Store(idempotencyKey, true)
	}
	shown := "none"
	if key != nil {
		shown = base64.StdEncoding.EncodeToString(key)
	}
	fmt.Printf("key=%s value=%s attempt=%d %s\n", shown, size, attempt, result.verdict)
	header := response.Header()
	header.Set("Kladder-Verdict", result.verdict)
	if result.class != "" {
		header.Set("Kladder-Error-Class", result.class)
	}
	if result.retryAfter != "" {
		header.Set("Retry-After", result.retryAfter)
	}
	response.WriteHeader(statuses[result.verdict])
	io.WriteString(response, result.text)
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run handler.go PORT")
		os.Exit(2)
	}
	server := &http.Server{Addr: "127.0.0.1:" + os.Args[1], Handler: http.HandlerFunc(serve)}
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	answered := make(chan struct{})
	go func() {
		<-ended.Done()
		// What is being handled is answered first.
		within, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		server.Shutdown(within)
		close(answered)
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	<-answered
}
