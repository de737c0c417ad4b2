// Sends 8 MB to HOST:PORT PATH, COUNT times, by HTTP/1.1 or HTTP/2 (h1 or h2), and prints the
// statuses. Each request has a new connection.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
)

func main() {
	address, path, version := os.Args[1], os.Args[2], os.Args[4]
	count, _ := strconv.Atoi(os.Args[3])
	body := bytes.Repeat([]byte("x"), 8_000_000)
	for range count {
		var protocols http.Protocols
		protocols.SetHTTP1(version == "h1")
		protocols.SetUnencryptedHTTP2(version == "h2")
		client := http.Client{Transport: &http.Transport{Protocols: &protocols}}
		response, err := client.Post("http://"+address+path, "text/plain", bytes.NewReader(body))
		if err != nil {
			fmt.Println(strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		_, err = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if err != nil {
			fmt.Println(response.StatusCode, err)
			continue
		}
		fmt.Println(response.StatusCode)
		client.CloseIdleConnections()
	}
}
