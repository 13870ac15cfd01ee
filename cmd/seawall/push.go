package main

import (
	"cmp"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"seawall/edge/admin"
)

// pushCommand is `seawall push`.
type pushCommand struct {
	URL        string   `arg:"" help:"The absolute URL that the response is for."`
	File       string   `arg:"" help:"The response's content; - is standard input."`
	Header     []string `short:"H" sep:"none" placeholder:"'NAME: VALUE'" help:"A field of the response. May be repeated."`
	Status     int      `default:"200" help:"The response's status (200)."`
	VaryHeader []string `sep:"none" placeholder:"'NAME: VALUE'" help:"A field of the requests that it is for, one for each that Vary names."`
	nodeFlags
}

// Help is shown under the command's flags.
func (*pushCommand) Help() string {
	return "The response must be one that the node may keep and share: give it a lifetime. Without a Content-Type, the file's name says it.\n\nExamples:\n" +
		"  seawall push http://shop.example.com/logo.svg logo.svg -H 'Cache-Control: max-age=3600'\n" +
		"  seawall push http://shop.example.com/ - -H 'Content-Type: text/html' -H 'Cache-Control: max-age=60' < page.html"
}

// pushAnswer is the answer of the API.
type pushAnswer struct {
	URL     string  `json:"url"`
	Key     string  `json:"key"`
	Variant string  `json:"variant"`
	Status  int     `json:"status"`
	Size    int64   `json:"size"`
	TTL     float64 `json:"ttl"`
}

// Run stores the response on the node.
func (c *pushCommand) Run(t *terminal) error {
	query := url.Values{"url": {c.URL}}
	for _, line := range c.VaryHeader {
		if _, _, err := headerLine("--vary-header", line); err != nil {
			return err
		}
		query.Add("header", line)
	}
	node, err := c.client()
	if err != nil {
		return err
	}
	defer node.close()
	content, size, err := c.open()
	if err != nil {
		return err
	}
	defer content.Close()
	ctx, stop := interruptible()
	defer stop()
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, node.base+"/v1/objects?"+query.Encode(), content)
	if err != nil {
		return err
	}
	if r.ContentLength = size; size == 0 {
		r.Body = http.NoBody // or else it is of unknown length
	}
	if err := c.fields(r.Header); err != nil {
		return err
	}
	var answer pushAnswer
	if err := node.send(r, &answer); err != nil {
		return err
	}
	if answer.Status == 0 {
		return node.strange()
	}
	if c.JSON {
		return printJSON(t.out, answer)
	}
	ttl := time.Duration(answer.TTL * float64(time.Second)).Round(time.Second)
	fmt.Fprintf(t.out, "stored %s: status %d, %s, fresh for %s\n", oneLine(cmp.Or(answer.URL, c.URL)), answer.Status, showBytes(answer.Size), showSpan(ttl))
	return nil
}

// open opens the content; its size is -1 when it is not known.
func (c *pushCommand) open() (io.ReadCloser, int64, error) {
	if c.File == "-" {
		return io.NopCloser(os.Stdin), -1, nil
	}
	file, err := os.Open(c.File)
	if err != nil {
		return nil, 0, fmt.Errorf("%w (hint: FILE is the content to store, - for standard input)", err)
	}
	info, err := file.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		err = fmt.Errorf("%s is a folder (hint: FILE is the content to store, - for standard input)", c.File)
	case !info.Mode().IsRegular():
		return file, -1, nil
	default:
		return file, info.Size(), nil
	}
	file.Close()
	return nil, 0, err
}

// fields puts the response's fields and status into h.
func (c *pushCommand) fields(h http.Header) error {
	h.Set("Expect", "100-continue") // what is refused need not be sent
	h.Set("Seawall-Status", strconv.Itoa(c.Status))
	for _, line := range c.Header {
		name, value, err := headerLine("-H", line)
		if err != nil {
			return err
		}
		if admin.Pushed(name) {
			h.Add(name, value)
		} else {
			h.Add("Seawall-Header", name+": "+value)
		}
	}
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", cmp.Or(mime.TypeByExtension(filepath.Ext(c.File)), "application/octet-stream"))
	}
	return nil
}

// headerLine parts NAME: VALUE.
func headerLine(flag, line string) (name, value string, err error) {
	name, value, ok := strings.Cut(line, ":")
	value = strings.TrimSpace(value)
	if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
		return "", "", &usageError{fmt.Sprintf("%s: %s is not a field (hint: write 'Name: value')", flag, show(line))}
	}
	return http.CanonicalHeaderKey(name), value, nil
}
