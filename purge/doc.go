// Package purge keeps what must no longer be served, and tells every node.
//
// It is not built yet: unsafe methods invalidate on their own, and nothing else
// is ever purged.
package purge
