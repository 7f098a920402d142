package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/gateway/audit"
)

// The journal's part of a log's directory:
//
//	FORMAT                       says that this is an audit log, and whose
//	LOCK                         held with flock(2) by the gateway
//	journal/000000012/345.seg    segment 12345
//	journal/000000012/345.tmp    a segment being rewritten, without meaning
const (
	lockName   = "LOCK"
	segmentDir = "journal"

	perDir    = 1000 // segments in one directory; at most 9 digits of directories
	extension = ".seg"
	temporary = ".tmp"
)

// FormatName is the name of the file whose presence makes a directory a log.
const FormatName = "FORMAT"

const formatMagic = "sallyport-audit-log"

// SegmentPath returns the name of a segment's file in the log's directory.
func SegmentPath(number uint64) string {
	return fmt.Sprintf("%s/%03d%s", shard(number), number%perDir, extension)
}

func shard(number uint64) string {
	return fmt.Sprintf("%s/%09d", segmentDir, number/perDir)
}

func tempPath(number uint64) string {
	return strings.TrimSuffix(SegmentPath(number), extension) + temporary
}

// Format returns the content of the FORMAT file of the named log.
func Format(instance string) string {
	return fmt.Sprintf("%s %d\n%s\n", formatMagic, version, instance)
}

// Create makes an empty log for the holder of key in dir, which it makes too if
// it does not exist. It is apart from Open so that a mistyped path is an error
// and not a second log. The error wraps fs.ErrExist if there is a log already.
func Create(dir string, key audit.PublicKey) error {
	if _, err := os.Stat(filepath.Join(dir, FormatName)); err == nil {
		return fmt.Errorf("journal: %s in %s: %w", FormatName, dir, fs.ErrExist)
	}
	if err := os.MkdirAll(filepath.Join(dir, segmentDir), dirPerm); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	fsys := dirFS{root}
	names, err := Segments(fsys)
	if err != nil {
		return err
	}
	if len(names) != 0 {
		return fmt.Errorf("%w: %s has segments but no %s", ErrForeign, dir, FormatName)
	}
	// A crash before the rename leaves directories that hold nothing and are no
	// log; creating again completes them.
	tmp := FormatName + temporary
	if err := writeFile(fsys, tmp, []byte(Format(key.Name()))); err != nil {
		return err
	}
	if err := fsys.Rename(tmp, FormatName); err != nil {
		return err
	}
	if err := fsys.SyncDir("."); err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(filepath.Clean(dir)))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// CheckFormat refuses a directory that is not the log of instance: the error wraps
// ErrForeign or ErrNewerFormat.
func CheckFormat(fsys FS, instance string) error {
	b, err := fsys.ReadFile(FormatName)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: it has no file %s", ErrForeign, FormatName)
	}
	if err != nil {
		return err
	}
	if string(b) == Format(instance) {
		return nil
	}
	first, rest, _ := strings.Cut(string(b), "\n")
	digits, ok := strings.CutPrefix(first, formatMagic+" ")
	v, err := strconv.Atoi(digits)
	if ok && err == nil && v > version {
		return fmt.Errorf("%w: version %d, this program knows %d", ErrNewerFormat, v, version)
	}
	return fmt.Errorf("%w: it is of %q, not %q", ErrForeign, strings.TrimSuffix(rest, "\n"), instance)
}

// Segments returns the numbers of all segment files, in order.
func Segments(fsys interface {
	List(dir string) ([]string, error)
},
) ([]uint64, error) {
	dirs, err := fsys.List(segmentDir)
	if err != nil {
		return nil, err
	}
	var all []uint64
	for _, dir := range dirs {
		numbers, err := segmentsIn(fsys, dir)
		if err != nil {
			return nil, err
		}
		all = append(all, numbers...)
	}
	return all, nil
}

// segmentsIn returns the numbers of the segments in one directory, in order. A
// name that is not a segment's is none of ours and is passed over.
func segmentsIn(fsys interface {
	List(dir string) ([]string, error)
}, dir string,
) ([]uint64, error) {
	high, err := strconv.ParseUint(dir, 10, 64)
	if err != nil || len(dir) != 9 {
		return nil, nil //nolint:nilerr // not the name of a directory of segments
	}
	names, err := fsys.List(segmentDir + "/" + dir)
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, name := range names {
		digits, ok := strings.CutSuffix(name, extension)
		low, err := strconv.ParseUint(digits, 10, 64)
		if ok && err == nil && len(digits) == 3 {
			numbers = append(numbers, high*perDir+low)
		}
	}
	return numbers, nil
}

// DirFS returns the file system of a log's directory for reading. The caller
// closes it.
func DirFS(dir string) (*os.Root, FS, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, err
	}
	return root, dirFS{root}, nil
}
