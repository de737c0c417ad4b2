//go:build tools

// Package tools imports h2spec, so that go.mod and go.sum pin its dependencies.
package tools

import _ "github.com/summerwind/h2spec/cmd/h2spec"
