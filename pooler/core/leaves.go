package core

// leavesBehind reports whether the words of a query tell that it leaves session state
// behind: its answer refuses the query.
func leavesBehind(text []byte) bool {
	return read(text).marks&(leavesState|setsUntracked|listens|preparesSQL) != 0
}
