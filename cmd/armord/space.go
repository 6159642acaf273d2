package main

import "golang.org/x/sys/unix"

// freeSpace is how many bytes this process may still write to the disk of a folder.
func freeSpace(dir string) (bytes uint64, known bool) {
	var about unix.Statfs_t
	if err := unix.Statfs(dir, &about); err != nil {
		return 0, false
	}
	return about.Bavail * uint64(about.Bsize), true
}
