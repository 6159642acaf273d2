package main

import (
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

func TestMembersAreTriedBehindTheAddresses(t *testing.T) {
	c := clusterAccess{Addresses: []string{"lb:1", "n1:1"}, Members: []string{"n1:1", "n2:1"}}
	if got := c.places(); !slices.Equal(got, []string{"lb:1", "n1:1", "n2:1"}) {
		t.Errorf("got %q", got)
	}
}

func TestOperatorCertificateIsJudgedBeforeAnybodyIsAsked(t *testing.T) {
	now := time.Now()
	c := clusterAccess{Name: "prod", Operator: "ann", CertFile: "ann.crt"}
	for _, test := range []struct {
		from, to time.Duration
		kind     error
		says     string
	}{
		{-time.Hour, time.Hour, nil, ""},
		{-time.Hour, -time.Minute, armor.ErrExpired, "operator ann (ann.crt, context prod) ended at"},
		{time.Minute, time.Hour, armor.ErrInvalid, "is not valid before"},
	} {
		err := c.checkValidity(&x509.Certificate{NotBefore: now.Add(test.from), NotAfter: now.Add(test.to)}, now)
		if !errors.Is(err, test.kind) || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("from %s to %s: %v", test.from, test.to, err)
		}
	}
}
