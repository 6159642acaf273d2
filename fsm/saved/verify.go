package saved

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/fsm"
)

// ErrNewer is why a state that is whole cannot be read: a newer build has saved it.
var ErrNewer = fsm.ErrCannotApply

// Verify reads all of the file and returns its state, if the file is what was saved: its
// checksum holds, the state that the rows give has the digest in the manifest, every
// signature is of somebody whom the peer CA vouches for and who is in the state with that
// key, and one of them is the node's that the manifest names. Nothing is decoded that is not
// signed. It cannot tell whether the cluster agreed to the state: for that the nodes must
// be asked for their marks at the revision.
func (f *File) Verify(ca *x509.Certificate) (*armor.State, error) {
	signers, err := f.signers(ca)
	if err != nil {
		return nil, err
	}
	state, err := f.Read()
	if err != nil {
		return nil, err
	}
	return state, f.members(state, signers)
}

// VerifySigned is what is left of Verify once Read has returned the state: for who wants to
// see a state whose signatures do not hold.
func (f *File) VerifySigned(ca *x509.Certificate, state *armor.State) error {
	signers, err := f.signers(ca)
	if err != nil {
		return err
	}
	return f.members(state, signers)
}

// signers are those whose signatures hold, which is all of them.
func (f *File) signers(ca *x509.Certificate) ([]armor.Certificate, error) {
	if ca == nil {
		return nil, fmt.Errorf("%w: a saved state is verified with the cluster's peer CA certificate", armor.ErrInvalid)
	}
	signers := make([]armor.Certificate, len(f.signatures))
	saver := false
	for i, s := range f.signatures {
		var err error
		if signers[i], err = s.verify(f, ca); err != nil {
			return nil, err
		}
		saver = saver || s.Kind == pki.Node && s.Name == string(f.Manifest.Node)
	}
	if !saver {
		return nil, fmt.Errorf("%w: node %s, which is to have saved the state, has not signed it", armor.ErrDenied, f.Manifest.Node)
	}
	return signers, nil
}

// members says whether all signers are in the state.
func (f *File) members(state *armor.State, signers []armor.Certificate) error {
	for i, s := range f.signatures {
		if err := s.member(state, signers[i]); err != nil {
			return err
		}
	}
	return nil
}

// member says whether a signer is in the state with that key.
func (s Signature) member(state *armor.State, is armor.Certificate) error {
	var known armor.Certificate
	if s.Kind == pki.Node {
		m, _ := state.Members.Get(s.Name)
		known = m.Certificate
	} else {
		o, _ := state.Operators.Get(s.Name)
		known = o.Certificate
	}
	if known.Key.IsZero() || known.Key != is.Key {
		return fmt.Errorf("%w: it is signed by %s %s, and the state knows none of that name and key", armor.ErrDenied, s.Kind, s.Name)
	}
	if r, revoked := state.RevokesOwn(is); revoked {
		return fmt.Errorf("%w: it is signed by %s %s, whose certificate revision %d of the same state revokes",
			armor.ErrRevoked, s.Kind, s.Name, r.Revision)
	}
	return nil
}

// Read is Verify without the signatures: it returns the state if the file is whole, and says
// nothing of who made it.
func (f *File) Read() (*armor.State, error) {
	if err := f.Whole(); err != nil {
		return nil, err
	}
	m := fsm.New()
	if err := m.Restore(f.Snapshot()); err != nil {
		if errors.Is(err, fsm.ErrCannotApply) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", armor.ErrInvalid, err)
	}
	s := m.Snapshot()
	return s.State(), f.Manifest.differs(about(s, Origin{}))
}

// Whole reads the file and says whether its checksum holds. It takes no memory, and tells
// damage only.
func (f *File) Whole() error {
	digest := sha256.New()
	if _, err := io.Copy(digest, f.Snapshot()); err != nil {
		return fmt.Errorf("read a saved state: %w", err)
	}
	if armor.Digest(digest.Sum(nil)) != f.Manifest.Digest {
		return fmt.Errorf("%w: the checksum does not hold: the file is damaged", armor.ErrInvalid)
	}
	return nil
}
