package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// print writes a result: v as JSON, or what text writes.
func (a *app) print(v any, text func()) error {
	if !a.json {
		text()
		return nil
	}
	out, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = a.stdout.Write(append(out, '\n'))
	return err
}

// printMessage is print for what the gateway sent, in the form that REST gives it.
func (a *app) printMessage(m proto.Message, text func()) error {
	if !a.json {
		return a.print(nil, text)
	}
	raw, err := messageJSON(m)
	if err != nil {
		return err
	}
	return a.print(raw, nil)
}

// messageJSON gives a message's JSON without the spaces that protojson varies.
func messageJSON(m proto.Message) (json.RawMessage, error) {
	raw, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = json.Compact(&out, raw)
	return out.Bytes(), err
}

// table writes rows in columns under a header. Nothing is written for no rows.
func (a *app) table(header string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, strings.ReplaceAll(header, " ", "\t"))
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	_ = w.Flush()
}

// lines writes names and what they stand for.
func (a *app) lines(lines [][2]string) {
	for _, line := range lines {
		fmt.Fprintf(a.stdout, "%-12s%s\n", line[0]+":", line[1])
	}
}

// warnf tells something on standard error that does not end the command.
func (a *app) warnf(format string, args ...any) {
	fmt.Fprintf(a.stderr, "sallyport: "+format+"\n", args...)
}

// date gives a time in UTC, or "-".
func date(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}

// enumName gives the name of an enumeration's value as people write it:
// KEY_STATE_SOME_THING without its prefix is some-thing.
func enumName(e fmt.Stringer, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(e.String(), prefix)), "_", "-")
}

// enumValue is the inverse of enumName. The zero value has no name.
func enumValue(values map[string]int32, prefix, name string) (int32, bool) {
	v, ok := values[prefix+strings.ReplaceAll(strings.ToUpper(name), "-", "_")]
	return v, ok && v != 0 && name == strings.ToLower(name)
}

// enumNames lists the names that enumValue knows, in the order of their values.
func enumNames(values map[int32]string, prefix string) []string {
	var names []string
	for v := int32(1); ; v++ {
		name, ok := values[v]
		if !ok {
			return names
		}
		names = append(names, strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, prefix)), "_", "-"))
	}
}

// plural counts things of a regular name.
func plural(n int, noun string) string { return counted(n, noun, noun+"s") }

// counted counts things.
func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
