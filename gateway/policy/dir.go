package policy

import (
	"fmt"
	"io/fs"
	"strings"
)

// LoadDir reads the policy files of a directory: every *.cedar, in order of name.
// A directory, or a file of another kind, is refused, because it would look like
// policy that is in force; files whose names begin with a dot are passed over.
func LoadDir(fsys fs.FS) ([]File, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, err
	}
	var files []File
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if !e.Type().IsRegular() || !strings.HasSuffix(e.Name(), ".cedar") {
			return nil, fmt.Errorf("%w: %s is not a .cedar file", ErrInvalid, e.Name())
		}
		text, err := fs.ReadFile(fsys, e.Name())
		if err != nil {
			return nil, err
		}
		files = append(files, File{Name: e.Name(), Content: string(text)})
	}
	return files, nil
}
