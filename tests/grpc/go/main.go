// Calls with grpc-go, with its default settings and without generated code: messages are bytes.
//
//	grpc-go serve                                  prints its address, serves until it is killed
//	grpc-go calls GATEWAY MESSAGES CALLS CLIENTS   makes the calls, each client on one connection
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// raw passes messages as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = append([]byte(nil), data...); return nil }
func (raw) Name() string                       { return "proto" }

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAILED:", err)
		os.Exit(1)
	}
}

// handle answers /plain/Unary with the request, and /plain/Stream with as many messages of 40 bytes
// as the request says.
func handle(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	var request []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	switch method {
	case "/plain/Unary":
		return stream.SendMsg(&request)
	case "/plain/Stream":
		count, err := strconv.Atoi(string(request))
		if err != nil {
			return err
		}
		message := make([]byte, 40)
		for range count {
			if err := stream.SendMsg(&message); err != nil {
				return err
			}
			time.Sleep(50 * time.Microsecond)
		}
		return nil
	}
	return status.Error(codes.Unimplemented, method)
}

func serve() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	fmt.Println(listener.Addr())
	must(grpc.NewServer(grpc.UnknownServiceHandler(handle), grpc.ForceServerCodec(raw{})).Serve(listener))
}

// client makes the calls and returns the number of connections that they took.
func client(address string, messages, calls int) (int64, error) {
	var dials atomic.Int64
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		dials.Add(1)
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	channel, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})),
		grpc.WithContextDialer(dial))
	if err != nil {
		return 0, err
	}
	defer channel.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	stream, err := channel.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/plain/Stream")
	if err != nil {
		return 0, err
	}
	request := []byte(strconv.Itoa(messages))
	if err := stream.SendMsg(&request); err != nil {
		return 0, err
	}
	if err := stream.CloseSend(); err != nil {
		return 0, err
	}
	for received := 0; ; received++ {
		var message []byte
		err := stream.RecvMsg(&message)
		if err == io.EOF && received == messages {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("after %d of %d messages: %w", received, messages, err)
		}
	}
	for call := range calls {
		request, response := []byte("hello"), []byte{}
		if err := channel.Invoke(ctx, "/plain/Unary", &request, &response); err != nil {
			return 0, fmt.Errorf("call %d of %d: %w", call, calls, err)
		}
	}
	// Errors of the gateway have the form of gRPC.
	request, response := []byte("hello"), []byte{}
	err = channel.Invoke(ctx, "/down/Unary", &request, &response)
	if status.Code(err) != codes.Unavailable || status.Convert(err).Message() != "the upstream cannot be reached" {
		return 0, fmt.Errorf("the error of the gateway is %v", err)
	}
	return dials.Load(), nil
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "serve" {
		serve()
	}
	if len(os.Args) != 6 || os.Args[1] != "calls" {
		must(fmt.Errorf("usage: grpc-go serve | grpc-go calls GATEWAY MESSAGES CALLS CLIENTS"))
	}
	var numbers [3]int
	for at := range numbers {
		number, err := strconv.Atoi(os.Args[3+at])
		must(err)
		numbers[at] = number
	}
	began := time.Now()
	var clients sync.WaitGroup
	for range numbers[2] {
		clients.Go(func() {
			connections, err := client(os.Args[2], numbers[0], numbers[1])
			must(err)
			if connections != 1 {
				must(fmt.Errorf("a client needed %d connections", connections))
			}
		})
	}
	clients.Wait()
	fmt.Printf("ok: %d clients, each %d messages and %d calls on one connection, in %v\n", numbers[2], numbers[0], numbers[1], time.Since(began).Round(time.Millisecond))
}
