// A worker in Go with nothing but its standard library:
//
//	go run examples/forward/worker.go 3000
//	bullwark worker --queue emails --forward http://127.0.0.1:3000
//
// Set BULLWARK_FORWARD_SECRET for both, and deliveries are signed. A secret that begins with `whsec_`
// is base64 behind that, as Standard Webhooks writes secrets.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// Job is the part of a delivery that the handlers below use.
type Job struct {
	ID           string          `json:"id"`
	Name         string          `json:"name"`
	Data         json.RawMessage `json:"data"`
	AttemptsMade int             `json:"attemptsMade"`
}

// Failure describes a failed attempt.
type Failure struct {
	Name      string `json:"name,omitempty"`
	Message   string `json:"message"`
	RetryInMs *int   `json:"retryInMs,omitempty"`
}

func (failure *Failure) Error() string { return failure.Message }

func welcome(job Job) (any, error) {
	var data struct {
		To string `json:"to"`
	}
	if err := json.Unmarshal(job.Data, &data); err != nil {
		return nil, err
	}
	return map[string]string{"sent": data.To}, nil
}

func flaky(job Job) (any, error) {
	if job.AttemptsMade == 0 {
		wait := 100
		return nil, &Failure{Message: "try again", RetryInMs: &wait}
	}
	return "at the second attempt", nil
}

func hopeless(Job) (any, error) {
	return nil, &Failure{Name: "UnrecoverableError", Message: "no retry can help"}
}

// One function per job name.
var handlers = map[string]func(Job) (any, error){
	"welcome": welcome, "flaky": flaky, "hopeless": hopeless,
}

func isGenuine(header http.Header, body []byte) bool {
	text := os.Getenv("BULLWARK_FORWARD_SECRET")
	if text == "" {
		return true
	}
	secret := []byte(text)
	if strings.HasPrefix(text, "whsec_") {
		decoded, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, "whsec_"))
		if err != nil {
			return false
		}
		secret = decoded
	}
	id, timestamp := header.Get("webhook-id"), header.Get("webhook-timestamp")
	seconds, err := strconv.ParseFloat(timestamp, 64)
	if err != nil || math.Abs(float64(time.Now().Unix())-seconds) > 300 {
		return false
	}
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body)
	expected := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	return hmac.Equal([]byte(expected), []byte(header.Get("webhook-signature")))
}

func receive(response http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	if !isGenuine(request.Header, body) {
		answer(response, http.StatusUnauthorized, map[string]any{"error": Failure{Message: "bad signature"}})
		return
	}
	var delivery struct {
		Job Job `json:"job"`
	}
	err = json.Unmarshal(body, &delivery)
	var value any
	if handler := handlers[delivery.Job.Name]; err == nil && handler != nil {
		value, err = handler(delivery.Job)
	} else if err == nil {
		err = fmt.Errorf("no handler for %s", delivery.Job.Name)
	}
	if err == nil {
		answer(response, http.StatusOK, map[string]any{"returnvalue": value})
		return
	}
	var failure *Failure
	if !errors.As(err, &failure) {
		failure = &Failure{Message: err.Error()}
	}
	answer(response, http.StatusInternalServerError, map[string]any{"error": failure})
}

func answer(response http.ResponseWriter, status int, value any) {
	response.Header().Set("content-type", "application/json")
	response.WriteHeader(status)
	json.NewEncoder(response).Encode(value)
}

func main() {
	port := "3000"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("{\"port\":%d}\n", listener.Addr().(*net.TCPAddr).Port)
	http.Serve(listener, http.HandlerFunc(receive))
}
