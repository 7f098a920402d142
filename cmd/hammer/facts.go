package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/cmd/hammer/internal/loop"
	"github.com/sallyport/sallyport/cmd/hammer/internal/target"
)

const coldStarts = 5

// coldStarts measures how long the gateway takes from its start to its readiness
// when its keys and data exist. The last of them goes on running.
func (b *bench) coldStarts(ctx context.Context) error {
	say("starting the gateway, %d times", 1+coldStarts)
	first, err := startGateway(ctx, b.bin, b.dir)
	if err != nil {
		return err
	}
	first.Stop()
	return b.restarts(ctx, 0)
}

// restarts starts the gateway again and again, and reports.
func (b *bench) restarts(ctx context.Context, keyrings int) error {
	var times loop.Histogram
	for n := range coldStarts {
		s, err := startGateway(ctx, b.bin, b.dir)
		if err != nil {
			return err
		}
		if err := s.readiness(ctx); err != nil {
			s.Stop()
			return fmt.Errorf("the gateway says that it is ready, but %w", err)
		}
		times.Add(s.Ready())
		if n < coldStarts-1 {
			s.Stop()
			continue
		}
		b.gateway = s
		b.servers = append(b.servers, s)
	}
	x := newRow("sallyport-dev", "cold-start")
	x.Callers, x.Rounds, x.Keyrings, x.Audit = 1, coldStarts, keyrings, "durable"
	x.P50, x.P99 = milliseconds(times.Quantile(0.5)), milliseconds(times.Quantile(1))
	with := ""
	if keyrings > 0 {
		memory, err := b.gateway.Memory()
		if err != nil {
			return err
		}
		with = fmt.Sprintf(", with %d keyrings (%d MiB resident)", keyrings, memory>>20)
	}
	return b.report.fact(x, "ready from cold start: %s ms (median of %d, worst %s)%s",
		x.P50.text(0), coldStarts, x.P99.text(0), with)
}

const (
	stampedeCallers = 1000
	// stampedeClients share the callers, so that no connection's limit on streams
	// makes a queue of them.
	stampedeClients = 8
)

// stampede has a thousand callers want a key at once that nobody has opened yet.
func (b *bench) stampede(ctx context.Context) error {
	say("%d callers at once, on a cold gateway", stampedeCallers)
	var clients []*target.GRPC
	for range stampedeClients {
		c, err := target.NewGRPC(ctx, b.gateway.Endpoints, b.keyring)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		clients = append(clients, c)
	}
	before, err := b.gateway.ReadMetrics(ctx)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var latency loop.Histogram
	var failures []error
	var wg sync.WaitGroup
	gate := make(chan struct{})
	for i := range stampedeCallers {
		wg.Go(func() {
			<-gate
			start := time.Now()
			_, err := clients[i%stampedeClients].Encrypt(ctx, target.Item{Data: []byte("stampede")})
			d := time.Since(start)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failures = append(failures, err)
				return
			}
			latency.Add(d)
		})
	}
	close(gate)
	wg.Wait()
	if len(failures) == stampedeCallers {
		return failures[0]
	}
	after, err := b.gateway.ReadMetrics(ctx)
	if err != nil {
		return err
	}
	calls := none
	if v, ok := after.Since(before, target.KMSCalls); ok {
		calls = figure(v)
	}
	x := newRow(overGRPC, "cold-stampede")
	x.Callers, x.Size, x.Audit, x.Operations, x.Failed = stampedeCallers, len("stampede"), "durable", latency.Count(), uint64(len(failures))
	x.P50, x.P99 = milliseconds(latency.Quantile(0.5)), milliseconds(latency.Quantile(0.99))
	x.KMS = calls * million / stampedeCallers
	return b.report.fact(x, "cold stampede of %d callers: %s KMS calls, %d failures, p99 %s ms",
		stampedeCallers, calls.text(0), len(failures), x.P99.text(1))
}

// verification measures how fast the log of this run is verified, offline.
func (b *bench) verification(ctx context.Context) error {
	say("verifying the audit log")
	start := time.Now()
	out, err := commandLine(ctx, b.bin, "audit", "verify", b.gateway.Audit.Dir, "--key", b.gateway.Audit.Key, "--output", "json")
	d := time.Since(start)
	if err != nil {
		return err
	}
	var found struct {
		Records uint64 `json:"records"`
	}
	if err := json.Unmarshal(out, &found); err != nil {
		return fmt.Errorf("sallyport audit verify prints %q: %w", out, err)
	}
	x := newRow("audit", "verify")
	x.Callers, x.Audit, x.Operations = 1, "durable", found.Records
	x.OpsPerS = figure(float64(found.Records) / d.Seconds())
	return b.report.fact(x, "audit verification: %s records/s (%d records in %.2f s)", x.OpsPerS.text(0), found.Records, d.Seconds())
}

// commandLine runs sallyport and gives what it prints.
func commandLine(ctx context.Context, bin string, args ...string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "sallyport"), args...).CombinedOutput() //nolint:gosec // our own program
	if err != nil {
		return out, fmt.Errorf("sallyport %v: %w\n%s", args, err, out)
	}
	return out, nil
}

// decisionTime finds the time of a decision in what the policy engine's own
// benchmark prints.
var decisionTime = regexp.MustCompile(`BenchmarkDecide/(\d+)\S*\s+\d+\s+([0-9.]+) ns/op`)

// decision measures deciding with ten thousand policies. That is no call by itself,
// so the engine's benchmark measures it; without Go and the source it is left out.
func (b *bench) decision(ctx context.Context) error {
	say("deciding with ten thousand policies")
	out, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkDecide$/^10000$", "./gateway/policy").CombinedOutput()
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		say("it cannot be measured here: %v", errors.Join(err, errors.New(string(out))))
		return nil
	}
	for _, m := range decisionTime.FindAllSubmatch(out, -1) {
		ns, err := strconv.ParseFloat(string(m[2]), 64)
		if err != nil {
			return err
		}
		x := newRow("policy", "decide/"+string(m[1]))
		x.Callers, x.CPU = 1, figure(ns/1e3)
		if err := b.report.fact(x, "a decision with %s policies: %s µs", m[1], x.CPU.text(2)); err != nil {
			return err
		}
	}
	return nil
}

// fileSystem names the file system that a directory is on, as far as it matters: on
// one in memory nothing is durable and syncing is free.
func fileSystem(dir string) string {
	const tmpfs, ext4, xfs, btrfs, overlay = 0x01021994, 0xef53, 0x58465342, 0x9123683e, 0x794c7630
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return "an unknown file system"
	}
	switch uint32(s.Type) {
	case tmpfs:
		return "tmpfs, WHICH IS MEMORY: figures with audit are not to be believed"
	case ext4:
		return "ext4"
	case xfs:
		return "xfs"
	case btrfs:
		return "btrfs"
	case overlay:
		return "overlayfs"
	}
	return fmt.Sprintf("a file system of type %#x", uint32(s.Type))
}
