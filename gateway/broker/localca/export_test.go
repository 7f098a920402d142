package localca

import "context"

// Stage does what Create does until the file has its name, and ends as if there were
// a crash.
func Stage(ctx context.Context, path string, c Config) error {
	f, err := newAuthority(ctx, c.KEKs[0], c.Deployment, c.Environment, c.Now())
	if err != nil {
		return err
	}
	_, err = stage(path, f.encode())
	return err
}

// EncodePEM is the package's own.
var EncodePEM = encodePEM
