package rfc9111

import (
	"strings"
	"testing"
)

func TestLanguagesAreReducedToOne(t *testing.T) {
	l, err := NewLanguages("en", "de", "pt-BR", "zh-Hant", "zh")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, field, want string
	}{
		{"none", "", ""},
		{"exact", "de", "de"},
		{"letter case", "DE", "de"},
		{"a region of it", "en-GB,en;q=0.9", "en"},
		{"by weight", "en;q=0.5, de;q=0.6", "de"},
		{"as written among equals", "de, en", "de"},
		{"the first that is there", "fr-FR, fr;q=0.9, de;q=0.8, en;q=0.7", "de"},
		{"a range is looked up before the next", "en-GB, de;q=0.9, en;q=0.8", "en"},
		{"script before language", "zh-Hant-TW, zh;q=0.9", "zh-Hant"},
		{"a single letter goes with what is behind it", "zh-Hant-x-private", "zh-Hant"},
		{"less than what is there", "pt", "pt-BR"},
		{"no part of a subtag", "p, e", ""},
		{"refused", "de;q=0", ""},
		{"refused, and its region wanted", "de-AT, de;q=0, en;q=0.1", "en"},
		{"any is the origin's choice", "*", ""},
		{"any behind what is not there", "fr, *;q=0.5", ""},
		{"unreadable ones do not count", "d_e, fr;q=x, en;q=2, de;q=0.1", "de"},
		{"more than sixteen", strings.Repeat("fr, ", 20) + "de", "de"},
	} {
		got := l.Reduce(strings.Split(test.field, "\n"))
		if strings.Join(got, "\n") != test.want || len(got) > 1 {
			t.Errorf("%s: %q: got %q, want %q", test.name, test.field, got, test.want)
		}
		if again := l.Reduce(got); strings.Join(again, "\n") != test.want {
			t.Errorf("%s: %q: reduced again: got %q, want %q", test.name, test.field, again, test.want)
		}
	}
	lines := []string{"fr-FR, fr;q=0.9, en-GB;q=0.8, *;q=0.1"}
	noAllocs(t, "Reduce", func() { l.Reduce(lines) })
}

func TestTypesAreReducedToThoseNamed(t *testing.T) {
	types, err := NewTypes("image/avif", "image/webp")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, field, want string }{
		{"none", "", "*/*"},
		{"any", "*/*", "*/*"},
		{"Chrome", "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", "image/avif, image/webp, */*;q=0.9"},
		{"Firefox", "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", "image/avif, image/webp, */*;q=0.9"},
		{"Safari", "image/webp,image/avif,image/jxl,image/heic,image/heic-sequence,video/*;q=0.8,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", "image/avif, image/webp, */*;q=0.9"},
		{"a Chrome without AVIF", "image/webp,image/apng,image/*,*/*;q=0.8", "image/webp, */*;q=0.9"},
		{"wildcards name nothing", "image/*", "*/*"},
		{"letter case and white space", "IMAGE/AVIF ; q=0.50 , */*; q=0.1", "image/avif, */*;q=0.9"},
		{"weights keep their order", "image/avif;q=0.3, image/webp;q=0.4", "image/webp, image/avif;q=0.9, */*;q=0.8"},
		{"equal to the rest", "image/avif, */*", "image/avif, */*"},
		{"below the rest", "image/avif;q=0.2, */*", "*/*, image/avif;q=0.9"},
		{"refused", "image/avif;q=0, image/webp", "image/webp, */*;q=0.9, image/avif;q=0"},
		{"the rest refused", "image/avif, */*;q=0", "image/avif, */*;q=0.9"},
		{"others", "text/turtle, text/html;level=1", "*/*"},
		{"the best of two", "image/avif;q=0.1, image/webp;q=0.2, image/avif;q=0.3", "image/avif, image/webp;q=0.9, */*;q=0.8"},
		{"unreadable ones do not count", "image/avif;q=x, image/webp;v=1, image/avif;q=1.5", "*/*"},
	} {
		got := types.Reduce([]string{test.field})
		if got != test.want {
			t.Errorf("%s: %q: got %q, want %q", test.name, test.field, got, test.want)
		}
		if again := types.Reduce([]string{got}); again != got {
			t.Errorf("%s: %q: reduced again: got %q, want %q", test.name, test.field, again, got)
		}
	}
}

func TestReductionsAreToWhatThereCanBe(t *testing.T) {
	for _, tag := range []string{"", "*", "de-*", "d_e", "de, en", strings.Repeat("a", 36)} {
		if _, err := NewLanguages("en", tag); err == nil {
			t.Errorf("language %q: got no error", tag)
		}
	}
	for _, name := range []string{"", "image", "image/*", "*/*", "image/avif;q=1", "a/b/c"} {
		if _, err := NewTypes("image/webp", name); err == nil {
			t.Errorf("type %q: got no error", name)
		}
	}
	if _, err := NewTypes("a/1", "a/2", "a/3", "a/4", "a/5", "a/6", "a/7", "a/8", "a/9"); err == nil {
		t.Error("nine types: got no error")
	}
}
