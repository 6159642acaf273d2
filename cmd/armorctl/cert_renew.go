package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
	"github.com/armordb/armordb/rpc"
)

// certRenewOptions are the flags of cert renew.
type certRenewOptions struct {
	ca, at, lifetime, owner, hook, passphraseFile, passwordFile string
	ifExpiring                                                  bool
}

// renewAt is the share of a certificate's life after which it is renewed: before status warns of it.
const renewAt = "66%"

func (a *app) certRenewCommand() *cobra.Command {
	var o certRenewOptions
	cmd := &cobra.Command{
		Use:   "renew FOLDER --ca DIR",
		Short: "put a new key and certificate in the place of those in a folder",
		Long: `Makes a new key and a certificate of the same identity, owner and lifetime, registers it as the
successor of the one in FOLDER, and puts both in its place, in the formats that FOLDER has: whoever
reads the folder meanwhile finds the old pair or the new one. Then --hook is run, by sh, with
ARMOR_CERT_FOLDER, ARMOR_CERT_IDENTITY and ARMOR_CERT_NOT_AFTER in its environment.

With --if-expiring nothing happens, and the exit code is 0, until the share --at of the
certificate's life is over: a timer may run it as often as it likes. Then neither the cluster nor
the CA is asked. A hook that failed is run again.`,
		Example: "  armorctl cert renew ./checkout --ca ./ca/production --if-expiring --hook 'systemctl reload checkout'",
		Args:    exactly("FOLDER"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.renewCert(cmd.Context(), args[0], o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.ca, "ca", "", "`folder` of the client CA")
	f.BoolVar(&o.ifExpiring, "if-expiring", false, "only once the share --at of its life is over")
	f.StringVar(&o.at, "at", renewAt, "the `share` of the certificate's life after which --if-expiring renews it")
	f.StringVar(&o.lifetime, "lifetime", "", "the new certificate's `lifetime` (default: the former one's)")
	f.StringVar(&o.owner, "owner", "", "the `team` that answers for it (default: the former one's)")
	f.StringVar(&o.hook, "hook", "", "a shell `command` to run afterwards, such as one that has the application read the files again")
	passphraseFlag(cmd, &o.passphraseFile)
	passwordFlag(cmd, &o.passwordFile)
	return cmd
}

// lapse is a certificate in a folder, and when it is due to be renewed.
type lapse struct {
	dir  string
	cert *x509.Certificate
	id   armor.Identity
	due  time.Time
}

func (a *app) renewCert(ctx context.Context, dir string, o certRenewOptions) error {
	percent, err := parsePercent("--at", o.at)
	if err != nil {
		return err
	}
	if o.ca == "" {
		return &fault.Usage{Err: errors.New("cert renew needs --ca, the folder of the client CA")}
	}
	unlock, err := issue.Lock(dir)
	if err != nil {
		return err
	}
	l, err := lapseOf(dir, percent)
	if err == nil {
		err = a.renewLapsed(ctx, l, o)
	}
	return errors.Join(err, unlock())
}

func parsePercent(flag, s string) (int, error) {
	percent, err := strconv.Atoi(strings.TrimSuffix(s, "%"))
	if err != nil || percent < 1 || percent > 99 {
		return 0, &fault.Usage{Err: fmt.Errorf("%s %q is not a share from 1%% to 99%%", flag, s)}
	}
	return percent, nil
}

func lapseOf(dir string, percent int) (lapse, error) {
	cert, err := issue.Certificate(filepath.Join(issue.Current(dir), issue.CertFile))
	if err != nil {
		return lapse{}, err
	}
	id, err := pki.URIIdentity(cert)
	if err != nil {
		return lapse{}, fmt.Errorf("%s in %s: %w", issue.CertFile, dir, err)
	}
	used := cert.NotAfter.Sub(cert.NotBefore) / 100 * time.Duration(percent)
	return lapse{dir, cert, id, cert.NotBefore.Add(used)}, nil
}

// renewLapsed renews the certificate if it is time, and runs the hook if that is due.
func (a *app) renewLapsed(ctx context.Context, l lapse, o certRenewOptions) error {
	if o.ifExpiring && a.now().Before(l.due) {
		a.say("nothing to do: the certificate of %s is good until %s, and is renewed from %s on",
			l.id, stamp(l.cert.NotAfter), stamp(l.due))
		v := viewOfCert(&armor.State{}, armor.CertRecord{Certificate: pki.Facts(l.cert, armor.Digest{})}, a.now())
		v.Issuer = l.cert.Issuer.String()
		return a.finishRenewal(ctx, o.hook, l, renewalView{certView: v, Folder: l.dir, DueAt: stamp(l.due)})
	}
	issued, err := a.renewNow(ctx, l, o)
	if err != nil {
		return err
	}
	v := viewOfCert(issued.State, issued.Record, a.now())
	return a.finishRenewal(ctx, o.hook, l, renewalView{certView: v, Folder: l.dir, Renewed: true})
}

// finishRenewal runs the hook if one is due, and shows what was done, also when the hook fails.
func (a *app) finishRenewal(ctx context.Context, hook string, l lapse, v renewalView) error {
	var failed error
	v.Hooked, failed = a.runHook(ctx, hook, l, v.NotAfter)
	return errors.Join(failed, a.showRenewal(v))
}

// renewNow makes another certificate like the former one.
func (a *app) renewNow(ctx context.Context, l lapse, o certRenewOptions) (issue.Issued, error) {
	lifetime := l.cert.NotAfter.Sub(l.cert.NotBefore)
	if o.lifetime != "" {
		var err error
		if lifetime, err = parsePositive("--lifetime", o.lifetime); err != nil {
			return issue.Issued{}, err
		}
	}
	formats := issue.FormatsOf(l.dir)
	if len(formats) == 0 {
		return issue.Issued{}, fault.Hinted(fmt.Errorf("%w: %s has a certificate and no key of it: that is elsewhere", armor.ErrNotFound, l.dir),
			"armorctl cert issue %s --csr FILE signs for a key that is elsewhere", l.id)
	}
	r := issue.Request{
		CADir: o.ca, Identity: string(l.id), Lifetime: lifetime, Owner: o.owner, Out: l.dir, Formats: formats, Now: a.now(),
	}
	if server := filepath.Join(l.dir, issue.ServerCAFile); file.Exist(server) {
		r.ServerCA = server
	}
	if err := a.sealAgain(ctx, &r, o.passwordFile); err != nil {
		return issue.Issued{}, err
	}
	return a.renewLike(ctx, l, o, r)
}

// sealAgain sets the password of the PKCS #12 file to what it was.
func (a *app) sealAgain(ctx context.Context, r *issue.Request, passwordFile string) (err error) {
	if passwordFile != "" || !slices.Contains(r.Formats, issue.PKCS12) {
		return formatOptions{passwordFile: passwordFile}.sealed(ctx, a, r)
	}
	r.Password, err = issue.PasswordOf(r.Out)
	r.KeepPassword = true
	return err
}

// renewLike asks the cluster what it has of the former certificate.
func (a *app) renewLike(ctx context.Context, l lapse, o certRenewOptions, r issue.Request) (issued issue.Issued, err error) {
	if r.CA, err = a.openCA(ctx, o.ca, pki.ClientCA, o.passphraseFile); err != nil {
		return issued, err
	}
	client, ctx, done, err := a.reach(ctx)
	if err != nil {
		return issued, err
	}
	defer done()
	if err := l.inherit(ctx, client, &r); err != nil {
		return issued, err
	}
	return l.markHook(o.hook, func() (issue.Issued, error) { return issue.Client(ctx, registrar{client, a}, r) })
}

// maxSuccessors bounds the successors that were registered and never written.
const maxSuccessors = 100

// inherit takes from the inventory who answers for the former certificate, and which one is its
// latest successor: a run that ended before it wrote the files has registered one.
func (l lapse) inherit(ctx context.Context, client *rpc.Client, r *issue.Request) error {
	fingerprint := pki.Fingerprint(l.cert)
	for range maxSuccessors {
		s, _, err := client.Ask(ctx, armor.Question{Certificates: []string{fingerprint.String()}}, certTables...)
		if err != nil {
			return err
		}
		record, found := s.Inventory.Get(fingerprint.String())
		if !found {
			return nil // nobody registered it, or its record was pruned
		}
		r.Environment, r.Replaces = record.Environment, fingerprint.String()
		r.Owner, r.Contact = cmp.Or(r.Owner, record.Owner), record.Contact
		if record.ReplacedBy.IsZero() {
			return nil
		}
		fingerprint = record.ReplacedBy
	}
	return fmt.Errorf("%w: the certificate of %s has more than %d successors", armor.ErrExhausted, l.id, maxSuccessors)
}

// hookMark says that a hook has to be run: until it has succeeded, the application may not know of
// its certificate.
func (l lapse) hookMark() string { return filepath.Join(l.dir, ".hook-due") }

// markHook marks the hook as due before the certificate is renewed, so that no crash leaves it out.
func (l lapse) markHook(hook string, renew func() (issue.Issued, error)) (issue.Issued, error) {
	if hook == "" || file.Exist(l.hookMark()) {
		return renew()
	}
	if err := file.Replace(l.hookMark(), nil, issue.Secret); err != nil {
		return issue.Issued{}, err
	}
	issued, err := renew()
	if err != nil {
		return issued, errors.Join(err, file.Remove(l.hookMark()))
	}
	return issued, nil
}

// runHook runs the hook if one is due. What it prints is for people.
func (a *app) runHook(ctx context.Context, hook string, l lapse, notAfter string) (ran bool, err error) {
	if hook == "" || !file.Exist(l.hookMark()) {
		return false, nil
	}
	dir, err := filepath.Abs(l.dir)
	if err != nil {
		return false, fmt.Errorf("find %s: %w", l.dir, err)
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", hook)
	cmd.Env = append(cmd.Environ(), "ARMOR_CERT_FOLDER="+dir, "ARMOR_CERT_IDENTITY="+string(l.id), "ARMOR_CERT_NOT_AFTER="+notAfter)
	cmd.Stdout, cmd.Stderr = a.errOut, a.errOut
	if err := cmd.Run(); err != nil {
		return true, fault.Hinted(fmt.Errorf("the certificate in %s is renewed, and its hook failed: %w", l.dir, err),
			"run it again: the hook is, too")
	}
	return true, file.Remove(l.hookMark())
}

// renewalView is the answer of cert renew.
type renewalView struct {
	certView
	Folder  string `json:"folder"`
	Renewed bool   `json:"renewed"`
	Hooked  bool   `json:"hooked"`          // the hook was due, and was run
	DueAt   string `json:"dueAt,omitempty"` // of one that was not renewed
}

func (a *app) showRenewal(v renewalView) error {
	renewed := "yes"
	if !v.Renewed {
		renewed = "not due before " + v.DueAt
	}
	t := facts("", [2]string{"identity", v.Identity}, [2]string{"renewed", renewed}, [2]string{"expires", v.NotAfter},
		[2]string{"serial", v.Serial}, [2]string{"fingerprint", v.Fingerprint}, [2]string{"files", v.Folder})
	return a.show(answer{data: v, tables: []table{t}})
}
