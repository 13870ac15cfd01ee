package edgetest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// paragraph is one step of a script: what stands above its command, the
// command, its input, and what it must print.
type paragraph struct {
	blank   int      // empty lines before it
	comment []string // lines that start with "#"
	line    int      // of the command in the file, from 1; 0 without a command
	command string   // as written; "" for a paragraph of comments
	input   []string // lines between the command and "----"
	want    []string // lines under "----"
}

// parseScript cuts a script into its paragraphs. Errors name file and line.
func parseScript(file, text string) ([]paragraph, error) {
	var (
		all   []paragraph
		p     paragraph
		under bool // past "----"
	)
	flush := func() {
		if p.command != "" || len(p.comment) > 0 {
			all = append(all, p)
			p = paragraph{}
		}
		under = false
	}
	for i, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		switch {
		case strings.TrimSpace(line) == "":
			flush()
			p.blank++
		case under:
			p.want = append(p.want, line)
		case line == "----":
			if p.command == "" {
				return nil, fmt.Errorf("%s:%d: ---- without a command above it", file, i+1)
			}
			under = true
		case p.command == "" && strings.HasPrefix(line, "#"):
			p.comment = append(p.comment, line)
		case p.command == "":
			p.command, p.line = line, i+1
		default:
			p.input = append(p.input, line)
		}
	}
	flush()
	if len(all) == 0 || len(all[0].comment) == 0 {
		return nil, fmt.Errorf("%s:1: a script opens with a comment that says the behaviour", file)
	}
	return all, nil
}

// format is the script's text with printed, one element a paragraph, in the
// place of what each command had to print.
func format(all []paragraph, printed [][]string) string {
	var b strings.Builder
	for i, p := range all {
		b.WriteString(strings.Repeat("\n", p.blank))
		lines := slices.Clone(p.comment)
		if p.command != "" {
			lines = append(append(lines, p.command), p.input...)
		}
		if len(printed[i]) > 0 {
			lines = append(append(lines, "----"), printed[i]...)
		}
		for _, line := range lines {
			b.WriteString(line)
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// args are a command's words, parted: the verb, what stands by position, and
// the options KEY=VALUE.
type args struct {
	verb    string
	words   []string
	options map[string]string
	used    map[string]bool
}

var optionForm = regexp.MustCompile(`^[a-z][a-z0-9_-]*=`)

// parseArgs reads a command line. Words are parted by spaces; double quotes
// keep spaces together, \" is a quote itself. A word that starts with a lower-case name and "=" is
// an option, so a target must not start with a letter (absolute forms do:
// "http://h/?a=b" has its "=" after characters that no option name has).
func parseArgs(line string) (*args, error) {
	words, err := splitWords(line)
	if err != nil {
		return nil, err
	}
	a := &args{verb: words[0], options: map[string]string{}, used: map[string]bool{}}
	for _, w := range words[1:] {
		if !optionForm.MatchString(w) {
			a.words = append(a.words, w)
			continue
		}
		key, value, _ := strings.Cut(w, "=")
		if _, twice := a.options[key]; twice {
			return nil, fmt.Errorf("option %s is given twice", key)
		}
		a.options[key] = value
	}
	return a, nil
}

// splitWords parts a line at spaces outside double quotes; the quotes go, but
// for those behind a backslash, whose backslash goes.
func splitWords(line string) ([]string, error) {
	var (
		words  []string
		word   strings.Builder
		open   bool
		inWord bool
	)
	const quote = '\x00' // stands for \" while the line is read
	for _, r := range strings.ReplaceAll(line, `\"`, string(rune(quote))) {
		switch {
		case r == quote:
			word.WriteByte('"')
			inWord = true
		case r == '"':
			open, inWord = !open, true
		case r == ' ' && !open:
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if open {
		return nil, fmt.Errorf("quote left open")
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, fmt.Errorf("empty command")
	}
	return words, nil
}

// option is the value of an option, or other where it is not given.
func (a *args) option(name, other string) string {
	a.used[name] = true
	if v, ok := a.options[name]; ok {
		return v
	}
	return other
}

// flag tells whether a bare word stands in the command, and takes it out.
func (a *args) flag(name string) bool {
	i := slices.Index(a.words, name)
	if i < 0 {
		return false
	}
	a.words = slices.Delete(a.words, i, i+1)
	return true
}

// duration is an option's value as a span of time.
func (a *args) duration(name string, other time.Duration) (time.Duration, error) {
	s := a.option(name, "")
	if s == "" {
		return other, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("option %s: %w", name, err)
	}
	return d, nil
}

// list is an option's value cut at commas; nil where it is not given.
func (a *args) list(name string) []string {
	s := a.option(name, "")
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// done reports the options and words that nothing has read.
func (a *args) done(words int) error {
	for name := range a.options {
		if !a.used[name] {
			return fmt.Errorf("%s has no option %s", a.verb, name)
		}
	}
	if len(a.words) != words {
		return fmt.Errorf("%s takes %d words, has %q", a.verb, words, a.words)
	}
	return nil
}

// field is one header or trailer field line.
type field struct{ name, value string }

// parseField reads "Name: value". The value may be empty.
func parseField(line string) (field, error) {
	name, value, ok := strings.Cut(line, ":")
	if !ok || name == "" || strings.ContainsAny(name, " \t") {
		return field{}, fmt.Errorf("%q is neither a field nor a body line", line)
	}
	return field{name, strings.TrimPrefix(value, " ")}, nil
}

// bodyLine is the text of an input line of a body: "| text", or "|" for an
// empty line.
func bodyLine(line string) (string, bool) {
	if line == "|" {
		return "", true
	}
	return strings.CutPrefix(line, "| ")
}
