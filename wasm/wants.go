package wasm

// WantsResponse tells, after Request, whether functions have callbacks for the
// response's header, and whether they want its content: as it passes, whole
// before the header, or with content of their own set before there was any.
func (r *Run) WantsResponse() (header, content bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.entries[:r.reached] {
		e := &r.entries[i]
		if e.s == nil {
			continue
		}
		header = header || e.wants.ResponseHeaders
		content = content || e.wants.BufferResponse || e.wantsContent(1)
	}
	x := r.x
	header = header || len(x.Early) > 0 || x.EarlyStatus != 0
	content = content || len(x.EarlyBody) > 0
	return header, content
}
