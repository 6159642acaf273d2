#!/bin/sh
# Builds Armor's programs with a wall clock that can be moved while they run, into the folder given. The sources are
# unmodified: the standard library's time/time.go is replaced, for this build alone, by a copy made of the machine's own
# Go. A program that is started with ARMOR_CLOCK_DIR set adds the seconds that stand in the file DIR/PID (an int64 in
# the machine's byte order, 0 at the start) to what time.Now shows. The monotonic and the boot clock stay true.
set -eu
cd "$(dirname "$0")/.."
out=${1:?usage: tools/movable-clock.sh FOLDER}
mkdir -p "$out"
out=$(cd "$out" && pwd)
source=$(go env GOROOT)/src/time/time.go
awk '
/^import \($/ { print; print "\t\"syscall\""; print "\t\"unsafe\""; next }
/^\t_ "unsafe" \/\/ for go:linkname$/ { next }
{ print }
/^\tsec, nsec, mono := runtimeNow\(\)$/ { print "\tif movedBy != nil {\n\t\tsec += *movedBy\n\t}"; changed++ }
END {
	print "\n// movedBy is how many seconds the wall clock is moved by."
	print "var movedBy *int64"
	print "\nfunc init() {"
	print "\tdir, set := syscall.Getenv(\"ARMOR_CLOCK_DIR\")"
	print "\tif !set {\n\t\treturn\n\t}"
	print "\tpid, name := syscall.Getpid(), \"\""
	print "\tfor ; pid > 0; pid /= 10 {\n\t\tname = string(rune(48+pid%10)) + name\n\t}"
	print "\tfd, err := syscall.Open(dir+\"/\"+name, syscall.O_RDWR|syscall.O_CREAT|syscall.O_CLOEXEC, 0o600)"
	print "\tif err != nil {\n\t\tpanic(err)\n\t}"
	print "\tif err = syscall.Ftruncate(fd, 8); err != nil {\n\t\tpanic(err)\n\t}"
	print "\tb, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)"
	print "\tif err != nil {\n\t\tpanic(err)\n\t}"
	print "\tmovedBy = (*int64)(unsafe.Pointer(&b[0]))"
	print "}"
	if (changed != 1) exit 1
}' "$source" >"$out/time.go" || { echo "movable-clock: $source is not as this script knows it: look at func Now there" >&2; exit 1; }
printf '{"Replace": {"%s": "%s"}}\n' "$source" "$out/time.go" >"$out/overlay.json"
CGO_ENABLED=0 go build -trimpath -overlay "$out/overlay.json" -o "$out/" ./cmd/armord ./cmd/armorctl
