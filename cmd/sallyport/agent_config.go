package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v4"
)

// agentConfig is the file of "sallyport agent". docs/cli.md explains it. It holds no
// secret. Relative paths of certificates are relative to the file.
type agentConfig struct {
	Connection agentConnection `yaml:"connection"`
	// AllowDisk lets secrets lie on file systems that are not memory.
	AllowDisk bool          `yaml:"allow_disk"`
	Secrets   []agentSecret `yaml:"secrets"`
}

// agentConnection is how the gateway is reached: the flags of the same names.
type agentConnection struct {
	Profile     string        `yaml:"profile"`
	Endpoint    string        `yaml:"endpoint"`
	CA          string        `yaml:"ca"`
	Cert        string        `yaml:"cert"`
	Key         string        `yaml:"key"`
	ServerName  string        `yaml:"server_name"`
	WorkloadAPI string        `yaml:"workload_api"`
	ServerID    string        `yaml:"server_id"`
	Timeout     time.Duration `yaml:"timeout"`
}

// agentSecret is one lease, and where its parts go.
type agentSecret struct {
	Role string `yaml:"role"`
	// Lifetime of each lease; the role's default if 0.
	Lifetime time.Duration `yaml:"lifetime"`
	// Directory is an absolute path; it is made if it is missing.
	Directory string `yaml:"directory"`
	// Files are the fields by the paths of files below the directory; "*" is all fields
	// as one JSON object.
	Files map[string]string `yaml:"files"`
	// Mode is that of the files, in octal, "0600" if empty, and Owner their "user",
	// "user:group" or ":group", by name or number.
	Mode     string        `yaml:"mode"`
	Owner    string        `yaml:"owner"`
	OnChange agentOnChange `yaml:"on_change"`
	// Grace is how long a secret works on after it was replaced; 30 seconds if 0.
	Grace time.Duration `yaml:"grace"`

	mode     fs.FileMode
	uid, gid int
}

// agentOnChange is done when new files are in place, the first included.
type agentOnChange struct {
	Command []string      `yaml:"command"`
	Timeout time.Duration `yaml:"timeout"` // of the command; a minute if 0
	Signal  *agentSignal  `yaml:"signal"`
}

// agentSignal is a signal for the process whose number is in a file.
type agentSignal struct {
	PIDFile string `yaml:"pid_file"`
	Signal  string `yaml:"signal"`

	number syscall.Signal
}

// wholeSecret stands for all fields, as one JSON object.
const wholeSecret = "*"

const maxAgentConfig = 1 << 20

// readAgentConfig reads and checks a file. The error lists everything that is wrong with
// it.
func readAgentConfig(file string) (*agentConfig, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	c := &agentConfig{}
	d := yaml.NewDecoder(io.LimitReader(f, maxAgentConfig))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var more any
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s holds more than one document", file)
	}
	if err := c.settle(filepath.Dir(file)); err != nil {
		return nil, fmt.Errorf("%s:\n%w", file, err)
	}
	return c, nil
}

func (c *agentConfig) settle(dir string) error {
	n := &c.Connection
	for _, path := range []*string{&n.Profile, &n.CA, &n.Cert, &n.Key} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
	var wrong []error
	bad := func(key, format string, args ...any) {
		wrong = append(wrong, fmt.Errorf("  %s: %s", key, fmt.Sprintf(format, args...)))
	}
	if n.Timeout < 0 {
		bad("connection.timeout", "must not be negative")
	}
	if len(c.Secrets) == 0 {
		bad("secrets", "there must be at least one")
	}
	taken := map[string]string{}
	for i := range c.Secrets {
		key := fmt.Sprintf("secrets[%d]", i)
		c.Secrets[i].settle(func(name, format string, args ...any) { bad(key+"."+name, format, args...) })
		for name := range c.Secrets[i].Files {
			path := filepath.Join(c.Secrets[i].Directory, name)
			if other := taken[path]; other != "" {
				bad(key+".files", "%s is a file of %s too", path, other)
			}
			taken[path] = key
		}
	}
	return errors.Join(wrong...)
}

func (s *agentSecret) settle(bad func(key, format string, args ...any)) {
	if from, ok := parseSelector(s.Role); !ok || from.field != "" {
		bad("role", "want tenants/{tenant}/secretRoles/{role}")
	}
	if !filepath.IsAbs(s.Directory) {
		bad("directory", "want an absolute path")
	}
	if len(s.Files) == 0 {
		bad("files", "there must be at least one")
	}
	for name, field := range s.Files {
		if err := checkName(name); err != nil {
			bad("files", "%s", err)
		}
		if field == "" {
			bad("files", "%s has no field; %q is all of them", name, wholeSecret)
		}
	}
	if s.Lifetime < 0 || s.Grace < 0 || s.OnChange.Timeout < 0 {
		bad("lifetime", "lifetimes, graces and timeouts must not be negative")
	}
	mode, err := strconv.ParseUint(strings.TrimPrefix(first(s.Mode, "0600"), "0o"), 8, 32)
	if err != nil || mode&^0o777 != 0 || mode&0o400 == 0 || mode&0o022 != 0 {
		bad("mode", `want permissions such as "0640" that let the owner read and only the owner write`)
	}
	s.mode = fs.FileMode(mode)
	if s.uid, s.gid, err = ownerOf(s.Owner); err != nil {
		bad("owner", "%s", err)
	}
	s.OnChange.settle(bad)
}

func (o *agentOnChange) settle(bad func(key, format string, args ...any)) {
	if len(o.Command) > 0 && o.Command[0] == "" {
		bad("on_change.command", "the command is empty")
	}
	if o.Signal == nil {
		return
	}
	if !filepath.IsAbs(o.Signal.PIDFile) {
		bad("on_change.signal.pid_file", "want an absolute path")
	}
	var err error
	if o.Signal.number, err = signalOf(o.Signal.Signal); err != nil {
		bad("on_change.signal.signal", "%s", err)
	}
}

// selects gives what belongs into a file.
func (s *agentSecret) selects(file string) selector {
	if s.Files[file] == wholeSecret {
		return selector{role: s.Role}
	}
	return selector{s.Role, s.Files[file]}
}

// ownerOf gives the numbers of a "user", "user:group" or ":group"; -1 for what is not
// named.
func ownerOf(text string) (uid, gid int, err error) {
	uid, gid = -1, -1
	name, group, _ := strings.Cut(text, ":")
	if name != "" {
		if uid, err = strconv.Atoi(name); err != nil {
			u, err := user.Lookup(name)
			if err != nil {
				return -1, -1, err
			}
			if uid, err = strconv.Atoi(u.Uid); err != nil {
				return -1, -1, err
			}
		}
	}
	if group != "" {
		if gid, err = strconv.Atoi(group); err != nil {
			g, err := user.LookupGroup(group)
			if err != nil {
				return -1, -1, err
			}
			if gid, err = strconv.Atoi(g.Gid); err != nil {
				return -1, -1, err
			}
		}
	}
	if uid < -1 || gid < -1 {
		return -1, -1, errors.New("a number is negative")
	}
	return uid, gid, nil
}

// process reads the number of a process from a file; 0 if there is none.
func (s *agentSignal) process() (int, error) {
	text, err := os.ReadFile(s.PIDFile)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	// Numbers below 2 would reach groups, everybody, or init.
	pid, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil || pid < 2 {
		return 0, fmt.Errorf("%s does not hold the number of a process", s.PIDFile)
	}
	return pid, nil
}
