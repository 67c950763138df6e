// A handler of orders: go run handler.go PORT
//
// Standard library only. An order is JSON with a number under "order". To try the ladder out, one with "fail": N fails N times, and one
// with "wait": S asks for S seconds of patience the first time. Takes batches of JSON lines (format = "ndjson"), too.
package main

import (
	"bytes"
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

// A real handler stores this together with its orders, in one transaction.
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

// keyOf returns the key as bytes; nil if there is none or it was too long for a header.
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

// handle decides about an order; a nil value is a tombstone.
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

// deliver is the verdict on one delivery, at most once done.
func deliver(idempotencyKey string, key, value []byte, attempt int) outcome {
	result := outcome{verdict: "done", text: "done before"}
	if _, seen := done.Load(idempotencyKey); !seen {
		result = handle(key, value, attempt)
	}
	if result.verdict == "done" {
		done.Store(idempotencyKey, true)
	}
	shown, size := "none", "null"
	if key != nil {
		shown = base64.StdEncoding.EncodeToString(key)
	}
	if value != nil {
		size = strconv.Itoa(len(value))
	}
	fmt.Printf("key=%s value=%s attempt=%d %s\n", shown, size, attempt, result.verdict)
	return result
}

// line is a record of a batch. A value that is JSON stands as it is, any other in base64; a null one is a tombstone.
type line struct {
	ID          string          `json:"id"`
	Attempt     int             `json:"attempt"`
	Key         *string         `json:"key"`
	KeyBase64   []byte          `json:"key_base64"`
	Value       json.RawMessage `json:"value"`
	ValueBase64 *[]byte         `json:"value_base64"`
}

type failure struct {
	ID           string `json:"id"`
	Verdict      string `json:"verdict"`
	RetryAfter   string `json:"retry_after,omitempty"`
	ErrorClass   string `json:"error_class,omitempty"`
	ErrorMessage string `json:"error_message,omitempty"`
}

// serveBatch says which records of a batch have failed; all others are done.
func serveBatch(response http.ResponseWriter, body []byte) {
	failures := []failure{}
	lines := json.NewDecoder(bytes.NewReader(body))
	for {
		var record line
		if err := lines.Decode(&record); err == io.EOF {
			break
		} else if err != nil {
			http.Error(response, err.Error(), http.StatusBadRequest)
			return
		}
		key, value := record.KeyBase64, []byte(record.Value)
		if record.Key != nil {
			key = []byte(*record.Key)
		}
		if record.ValueBase64 != nil {
			value = *record.ValueBase64
		} else if string(value) == "null" {
			value = nil
		}
		result := deliver(record.ID, key, value, record.Attempt)
		if result.verdict != "done" {
			failures = append(failures, failure{record.ID, result.verdict, result.retryAfter, result.class, result.text})
		}
	}
	response.Header().Set("Content-Type", "application/json")
	json.NewEncoder(response).Encode(map[string][]failure{"failures": failures})
}

func serve(response http.ResponseWriter, request *http.Request) {
	value, err := io.ReadAll(request.Body)
	if err != nil {
		return // The connection is lost; the record is delivered again.
	}
	if request.Header.Get("Content-Type") == "application/x-ndjson" {
		serveBatch(response, value)
		return
	}
	if request.Header.Get("Kladder-Value") == "null" {
		value = nil
	}
	attempt, attemptErr := strconv.Atoi(request.Header.Get("Kladder-Attempt"))
	key, keyErr := keyOf(request.Header)
	if err := errors.Join(attemptErr, keyErr); err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
		return
	}
	result := deliver(request.Header.Get("Idempotency-Key"), key, value, attempt)
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
		// Requests in flight are answered first.
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
