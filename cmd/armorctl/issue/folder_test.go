package issue

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
)

// testMade signs a new key, each time by another CA.
func testMade(t *testing.T) made {
	t.Helper()
	cert, caKey, err := pki.NewCA(pki.CAConfig{
		Kind: pki.ClientCA, CommonName: "test", TrustDomain: "production.acme.internal", Lifetime: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := pki.SignLeaf(cert, caKey, key.Public(), pki.LeafConfig{
		Identity: "spiffe://production.acme.internal/app/checkout", Client: true, Lifetime: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	return made{cert: leaf, key: key}
}

func handOutTest(t *testing.T, dir string, formats ...Format) made {
	t.Helper()
	m := testMade(t)
	files, err := m.files(Request{Formats: formats})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.write(dir, files); err != nil {
		t.Fatal(err)
	}
	return m
}

// readPair is what a program does that reads a certificate and its key from a folder.
func readPair(dir string) error {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, CertFile), filepath.Join(dir, KeyFile))
	if err != nil {
		return err
	}
	der, err := os.ReadFile(filepath.Join(dir, PKCS8File))
	if err != nil {
		return err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err == nil && !samePublicKey(pair.Leaf.PublicKey, key.(crypto.Signer).Public()) {
		err = errMixed
	}
	return err
}

var errMixed = errors.New("client.pk8 is another key")

func TestFolderNeverHasAMixedPair(t *testing.T) {
	dir := t.TempDir()
	handOutTest(t, dir, PEM, PKCS8)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	whole, followed := 0, 0
	readers.Go(func() { // finds the pair once, and reads all of it there
		for !closed(stop) {
			found := Current(dir)
			if err := readPair(found); found == dir || errors.Is(err, fs.ErrNotExist) { // not yet linked; or two renewals ago
				continue
			} else if err != nil {
				t.Errorf("who finds the pair once reads a mixed one: %v", err)
				return
			}
			whole++
		}
	})
	readers.Go(func() { // goes by the names; what it read while they were turned does not count
		for !closed(stop) {
			before := Current(dir)
			err := readPair(dir)
			if before == dir || Current(dir) != before {
				continue
			}
			if followed++; err != nil {
				t.Errorf("the names lead to a mixed pair: %v", err)
				return
			}
		}
	})
	for range 60 {
		handOutTest(t, dir, PEM, PKCS8)
	}
	close(stop)
	readers.Wait()
	if whole == 0 || followed == 0 {
		t.Errorf("the readers read %d and %d times", whole, followed)
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// renewForever has this test's program write one pair after another into a folder.
const renewForever = "ARMOR_TEST_RENEW_FOREVER"

func TestKilledRenewalLeavesAPair(t *testing.T) {
	if dir := os.Getenv(renewForever); dir != "" {
		for {
			handOutTest(t, dir, PEM, PKCS8)
		}
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		dir := t.TempDir()
		handOutTest(t, dir, PEM, PKCS8)
		cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestKilledRenewalLeavesAPair$")
		cmd.Env = append(cmd.Environ(), renewForever+"="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for len(pairsIn(t, dir)) == 0 { // it has begun; with i it is killed ever later
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(time.Duration(i) * time.Millisecond / 2)
		if err := errors.Join(cmd.Process.Kill(), ignoreExit(cmd.Wait())); err != nil {
			t.Fatal(err)
		}
		if err := readPair(dir); err != nil {
			t.Errorf("killed renewal %d: %v", i, err)
		}
		handOutTest(t, dir, PEM, PKCS8)
		if pairs := pairsIn(t, dir); len(pairs) > 2 {
			t.Errorf("renewal %d leaves %v", i, pairs)
		}
	}
}

func ignoreExit(err error) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil
	}
	return err
}

func pairsIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pairPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestRenewalKeepsModesAndDropsOtherFormats(t *testing.T) {
	dir := t.TempDir()
	handOutTest(t, dir, PEM, PKCS8)
	if err := os.Chmod(filepath.Join(dir, KeyFile), 0o640); err != nil {
		t.Fatal(err)
	}
	m := handOutTest(t, dir, PEM)
	info, err := os.Stat(filepath.Join(dir, KeyFile))
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := os.Lstat(filepath.Join(dir, PKCS8File)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the former key is still there as DER: %v", err)
	}
	if got := FormatsOf(dir); len(got) != 1 || got[0] != PEM {
		t.Errorf("the folder has %v", got)
	}
	// A file that somebody puts in a link's place is what is read, and is replaced as any other.
	if err := file.Replace(filepath.Join(dir, CertFile), pki.EncodeCertificatesPEM(m.cert), Public); err != nil {
		t.Fatal(err)
	}
	if got := Current(dir); got != dir {
		t.Errorf("the files are read in %s", got)
	}
	m = handOutTest(t, dir, PEM)
	cert, err := Certificate(filepath.Join(Current(dir), CertFile))
	if err != nil || !cert.Equal(m.cert) || Current(dir) == dir {
		t.Errorf("%s does not have the new certificate: %v", Current(dir), err)
	}
}

func TestOwnerStaysWhoItIs(t *testing.T) {
	dir := t.TempDir()
	handOutTest(t, dir, PEM)
	if os.Getuid() != 0 { // only root may write files for others, and whoever may not is told
		hint := (*fault.Hint)(nil)
		if err := giveTo(filepath.Join(dir, KeyFile), "/"); !errors.As(err, &hint) {
			t.Errorf("a file was given to root: %v", err)
		}
		return
	}
	for _, path := range []string{dir, filepath.Join(dir, CertFile), filepath.Join(dir, KeyFile)} {
		if err := os.Chown(path, 12345, 23456); err != nil {
			t.Fatal(err)
		}
	}
	handOutTest(t, dir, PEM, PKCS8)
	for _, path := range []string{Current(dir), filepath.Join(dir, CertFile), filepath.Join(dir, KeyFile), filepath.Join(dir, PKCS8File)} {
		if owner, err := ownerOf(path); err != nil || owner != [2]int{12345, 23456} {
			t.Errorf("%s is of %v, %v", path, owner, err)
		}
	}
}

func TestOnlyOneRenewsAFolder(t *testing.T) {
	dir := t.TempDir()
	unlock, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); !errors.Is(err, armor.ErrConflict) {
		t.Errorf("a second one: %v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if unlock, err = Lock(dir); err != nil {
		t.Fatal(err)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
	if _, err := Lock(filepath.Join(dir, "none")); !errors.Is(err, armor.ErrNotFound) {
		t.Errorf("no folder: %v", err)
	}
}
