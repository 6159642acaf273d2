package pooler

import "strings"

// ownerOf is who a client is when it comes to what it may find on a server connection: its
// identity without the host, since all machines of one app are one.
func ownerOf(g Guest) string {
	app, _, _ := strings.Cut(string(g.Peer().Leaf.Identity), hostWord)
	return app
}

// hostWord is what a host's name stands behind in an identity.
const hostWord = "/host/"
