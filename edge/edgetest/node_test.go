package edgetest

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestSettingsAreChecked(t *testing.T) {
	for _, c := range []struct {
		name string
		set  setting
		want string // in the error; "" for none
	}{
		{"every word of a choice", setting{"set_cookie", "strip", 0}, ""},
		{"unknown key", setting{"colour", "red", 0}, "colour=red: there is no such setting"},
		{"unknown key of a rule", setting{"memory", "1", 1}, "memory=1: there is no such setting"},
		{"unknown word", setting{"set_cookie", "eat", 0}, "set_cookie=eat: there is no such setting"},
		{"no duration", setting{"ttl", "long", 0}, `ttl=long: time: invalid duration "long"`},
		{"no number", setting{"memory", "much", 0}, "memory=much: strconv.ParseInt"},
		{"no status", setting{"status", "ok", 1}, "status=ok: strconv.Atoi"},
		{"no prefix", setting{"trusted", "here", 0}, "trusted=here: netip.ParsePrefix"},
		{"refused by the handler", setting{"hosts", "UPPER", 0}, `host "UPPER"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, err := openEdge([]setting{c.set}, newOrigin(time.Now()))
				if err == nil {
					err = n.close()
				}
				switch {
				case c.want == "" && err != nil:
					t.Errorf("%v: got %v, want no error", c.set, err)
				case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
					t.Errorf("%v: got %v, want an error with %q", c.set, err, c.want)
				}
			})
		})
	}
}
