// A gateway in Go: a net/http server, plugins on the Extism SDK that exchange JSON, and a reverse
// proxy. It rebuilds the gateway of a published article that witgate answers to.
//
// /plain has no plugin. /shared calls one of two instances that all requests share, because a
// plugin is not safe for concurrent calls. /fresh makes an instance for each request; the module is
// compiled once. One thread runs Go code (GOMAXPROCS=1).
//
// Arguments: the plugin's .wasm file, the upstream's URL. Prints its port.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"

	extism "github.com/extism/go-sdk"
	"github.com/tetratelabs/wazero"
)

type requestPayload struct {
	Method  string            `json:"method"`
	Path    string            `json:"path"`
	Headers map[string]string `json:"headers"`
	Body    []byte            `json:"body"`
}

type responseAction struct {
	StatusCode int               `json:"status_code"`
	Headers    map[string]string `json:"headers"`
	Body       string            `json:"body"`
	Block      bool              `json:"block"`
}

type gateway struct {
	compiled *extism.CompiledPlugin
	shared   chan *extism.Plugin
	proxy    *httputil.ReverseProxy
}

func (g *gateway) instance() (*extism.Plugin, error) {
	return g.compiled.Instance(context.Background(), extism.PluginInstanceConfig{ModuleConfig: wazero.NewModuleConfig()})
}

// filtered calls a plugin. Then it responds, or forwards the request with the headers that the
// plugin sets.
func (g *gateway) filtered(call func([]byte) ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		payload := requestPayload{Method: r.Method, Path: r.URL.Path, Headers: make(map[string]string, len(r.Header)), Body: []byte{}}
		for name, values := range r.Header {
			payload.Headers[name] = values[0]
		}
		input, err := json.Marshal(payload)
		if err != nil {
			http.Error(w, "internal error", http.StatusInternalServerError)
			return
		}
		output, err := call(input)
		if err != nil {
			log.Printf("plugin: %v", err)
			http.Error(w, "bad gateway", http.StatusBadGateway)
			return
		}
		var action responseAction
		if err := json.Unmarshal(output, &action); err != nil {
			log.Printf("plugin output: %v", err)
			http.Error(w, "bad gateway", http.StatusBadGateway)
			return
		}
		if action.Block {
			for name, value := range action.Headers {
				w.Header().Set(name, value)
			}
			w.WriteHeader(action.StatusCode)
			_, _ = io.WriteString(w, action.Body)
			return
		}
		for name, value := range action.Headers {
			r.Header.Set(name, value)
		}
		g.proxy.ServeHTTP(w, r)
	}
}

func (g *gateway) callShared(input []byte) ([]byte, error) {
	plugin := <-g.shared
	defer func() { g.shared <- plugin }()
	_, output, err := plugin.Call("handler", input)
	// Copy the output, because the next call reuses the plugin's memory.
	return append([]byte(nil), output...), err
}

func (g *gateway) callFresh(input []byte) ([]byte, error) {
	plugin, err := g.instance()
	if err != nil {
		return nil, err
	}
	defer plugin.Close(context.Background())
	_, output, err := plugin.Call("handler", input)
	return append([]byte(nil), output...), err
}

func run() error {
	upstream, err := url.Parse(os.Args[2])
	if err != nil {
		return err
	}
	manifest := extism.Manifest{
		Wasm:    []extism.Wasm{extism.WasmFile{Path: os.Args[1]}},
		Config:  map[string]string{"key": "s3cret"},
		Memory:  &extism.ManifestMemory{MaxPages: 64},
		Timeout: 500,
	}
	compiled, err := extism.NewCompiledPlugin(context.Background(), manifest, extism.PluginConfig{}, nil)
	if err != nil {
		return err
	}
	proxy := httputil.NewSingleHostReverseProxy(upstream)
	proxy.Transport = &http.Transport{MaxIdleConns: 512, MaxIdleConnsPerHost: 512, IdleConnTimeout: 2 * time.Minute, DisableCompression: true}
	g := &gateway{compiled: compiled, shared: make(chan *extism.Plugin, 2), proxy: proxy}
	for range cap(g.shared) {
		plugin, err := g.instance()
		if err != nil {
			return err
		}
		g.shared <- plugin
	}
	mux := http.NewServeMux()
	mux.Handle("/plain", proxy)
	mux.Handle("/shared", g.filtered(g.callShared))
	mux.Handle("/fresh", g.filtered(g.callFresh))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	server := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	return server.Serve(listener)
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
