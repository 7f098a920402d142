package main

import "golang.org/x/sys/unix"

// inMemory reports whether a directory's file system is memory. A tmpfs may be swapped
// out, a ramfs may not.
func inMemory(dir string) (bool, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return false, err
	}
	return uint32(s.Type) == unix.TMPFS_MAGIC || uint32(s.Type) == unix.RAMFS_MAGIC, nil
}
