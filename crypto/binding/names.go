package binding

import "unicode/utf8"

// MaxNamesBlockLen is the length of the largest names block, in bytes.
const MaxNamesBlockLen = MaxPairs * (1 + MaxNameLen)

// ParseNames reads a names block, as [Context.NamesBlock] writes it, and
// nothing else: the names must be strictly ascending and fill the block.
func ParseNames(block []byte) ([]string, error) {
	count, err := checkNames(block)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, count)
	for len(block) > 0 {
		n := 1 + int(block[0])
		names = append(names, string(block[1:n]))
		block = block[n:]
	}
	return names, nil
}

// CheckNames is [ParseNames] without the names, and without allocating.
func CheckNames(block []byte) error {
	_, err := checkNames(block)
	return err
}

func checkNames(block []byte) (count int, err error) {
	var previous []byte
	for ; len(block) > 0; count++ {
		name, rest, ok := cut(block, 1)
		switch {
		case count == MaxPairs:
			return 0, ErrTooManyPairs
		case !ok:
			return 0, ErrNotCanonical
		case len(name) == 0 || len(name) > MaxNameLen:
			return 0, ErrName
		case !utf8.Valid(name):
			return 0, ErrNotUTF8
		case count > 0 && string(name) <= string(previous):
			return 0, ErrNotCanonical
		}
		previous, block = name, rest
	}
	return count, nil
}
