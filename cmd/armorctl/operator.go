package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
	"github.com/armordb/armordb/rpc"
)

func (a *app) operatorCommand() *cobra.Command {
	return group("operator", "who may change the cluster", a.operatorAddCommand(), a.operatorRenewCommand(), a.operatorRemoveCommand(),
		a.operatorRescueCommand(), a.operatorListCommand())
}

// operatorOptions are the flags of operator add.
type operatorOptions struct {
	signing
	out, csr string
	roles    []string
}

func (a *app) operatorAddCommand() *cobra.Command {
	var o operatorOptions
	cmd := &cobra.Command{
		Use:   "add NAME --peer-ca DIR --role ROLE --out DIR",
		Short: "add an operator, or give one a new certificate and other roles",
		Long: `Makes a key and a certificate for an operator and tells the cluster its roles. With
--csr the operator's key stays where the request was made. Roles: viewer, revoker,
issuer, policy-admin, ca-admin, node-admin; none includes another.`,
		Example: "  armorctl operator add ann --peer-ca ./peer-ca --role viewer --role revoker --out ./ann",
		Args:    exactly("NAME"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.addOperator(cmd.Context(), args[0], o) },
	}
	signingFlags(cmd, &o.signing)
	f := cmd.Flags()
	f.StringSliceVar(&o.roles, "role", nil, "a `role`; repeatable, or by commas")
	f.StringVar(&o.out, "out", "", "`folder` for the operator's files")
	f.StringVar(&o.csr, "csr", "", "sign this certificate request, a PEM `FILE`, instead of making a key")
	return cmd
}

func (a *app) addOperator(ctx context.Context, name string, o operatorOptions) error {
	roles, err := o.check("operator add")
	if err != nil {
		return err
	}
	ca, err := a.openCA(ctx, o.peerCA, pki.PeerCA, o.passphraseFile)
	if err != nil {
		return err
	}
	client, ctx, done, err := a.reach(ctx)
	if err != nil {
		return err
	}
	defer done()
	state, err := client.State(ctx, armor.Members)
	if err != nil {
		return err
	}
	others, err := believed(state, ca)
	if err != nil {
		return err
	}
	lifetime, err := parsePositive("--lifetime", o.lifetime)
	if err != nil {
		return err
	}
	public, key, err := issue.PublicKey(o.csr)
	if err != nil {
		return err
	}
	cert, err := ca.Operator(state.Cluster.Name, name, public, lifetime)
	if err != nil {
		return err
	}
	operator, err := ca.OperatorFacts(name, cert, roles)
	if err != nil {
		return err
	}
	outcome, err := a.submit(ctx, client, armor.PutOperator{Operator: operator}, rpc.SubmitOptions{})
	if err != nil {
		return madeAnew(err)
	}
	if err := ca.WriteOperator(o.out, cert, key, others...); err != nil {
		return err
	}
	in := func(name string) string { return filepath.Join(o.out, name) }
	a.say("next, on the operator's machine:\n  armorctl context add %s --addr ADDRESS --cert %s --key %s --peer-ca %s", state.Cluster.Name,
		in(issue.OperatorCertFile), in(issue.OperatorKeyFile), in(issue.PeerCAFile))
	return a.showOperator(state, operator, o.out, outcome)
}

// check refuses what is missing, and to write over another operator's files.
func (o operatorOptions) check(verb string) ([]armor.OperatorRole, error) {
	if o.peerCA == "" || o.out == "" || len(o.roles) == 0 {
		return nil, &fault.Usage{Err: fmt.Errorf("%s needs --peer-ca, --role and --out", verb)}
	}
	if file.Exist(filepath.Join(o.out, issue.OperatorCertFile)) {
		return nil, fmt.Errorf("%w: %s holds an operator's certificate", armor.ErrConflict, o.out)
	}
	return parseRoles(o.roles)
}

func parseRoles(words []string) ([]armor.OperatorRole, error) {
	var roles []armor.OperatorRole
	for _, w := range words {
		role := armor.OperatorRole(w)
		if !slices.Contains(armor.OperatorRoles(), role) {
			return nil, &fault.Usage{Err: fmt.Errorf("--role %q is not one of %v", w, armor.OperatorRoles())}
		}
		if !slices.Contains(roles, role) {
			roles = append(roles, role)
		}
	}
	return roles, nil
}

// operatorView is an operator as -o json shows it.
type operatorView struct {
	Name        string   `json:"name"`
	Roles       []string `json:"roles"`
	Fingerprint string   `json:"fingerprint"`
	NotAfter    string   `json:"notAfter"`
	State       string   `json:"state"`
	Folder      string   `json:"folder,omitempty"`
	File        string   `json:"file,omitempty"` // of the renewed certificate
	Revision    uint64   `json:"revision,omitempty"`
}

func (a *app) viewOfOperator(s *armor.State, o armor.Operator) operatorView {
	_, revoked := s.RevokesOwn(o.Certificate)
	v := operatorView{Name: o.Name, Roles: []string{}, Fingerprint: o.Certificate.Fingerprint.String(),
		NotAfter: stamp(o.Certificate.NotAfter), State: stateWord(revoked, o.Certificate, a.now())}
	for _, r := range o.Roles {
		v.Roles = append(v.Roles, string(r))
	}
	return v
}

func (a *app) showOperator(s *armor.State, o armor.Operator, dir string, outcome rpc.Outcome) error {
	v := a.viewOfOperator(s, o)
	v.Folder, v.Revision = dir, outcome.Result.Revision
	return a.show(answer{data: v, tables: []table{facts("", [2]string{"operator", v.Name}, [2]string{"roles", strings.Join(v.Roles, ", ")},
		[2]string{"expires", v.NotAfter}, [2]string{"files", dir})}})
}

func (a *app) operatorListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "list the operators and their roles", Example: "  armorctl operator list", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			state, _, err := a.ask(cmd.Context(), armor.Question{}, armor.Operators, armor.Revoked)
			if err != nil {
				return err
			}
			views := []operatorView{}
			t := table{columns: []string{"name", "roles", "expires", "state"}, wide: []string{"fingerprint"}}
			for o := range state.Operators.Values() {
				v := a.viewOfOperator(state, o)
				views = append(views, v)
				t.row(v.Name, strings.Join(v.Roles, ","), relative(o.Certificate.NotAfter, a.now()), v.State, v.Fingerprint)
			}
			return a.show(answer{data: views, tables: []table{t}})
		},
	}
}
