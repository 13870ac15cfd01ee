package meter

import "fmt"

// refuse makes an error that names a place of the source.
func refuse(section byte, off int, format string, args ...any) error {
	return fmt.Errorf("meter: %s, byte %#x: %s", sectionName(section), off, fmt.Sprintf(format, args...))
}

// admit refuses what can be read but not be run within bounds.
func (s *source) admit(l Limits) error {
	if len(s.bin) > 1<<30 {
		return fmt.Errorf("meter: a module of %d bytes; at most 1 GiB can be rewritten", len(s.bin))
	}
	for _, i := range s.imports {
		if i.module == ImportModule {
			return refuse(secImport, i.off, "the module imports %s.%s, which is reserved for the rewriter; was it rewritten before? Load the original", ImportModule, clip(i.name))
		}
		if i.kind == kindTag {
			return refuse(secImport, i.off, "an exception is imported%s", noExceptions)
		}
		if i.kind == kindGlobal && i.global.mutable {
			return refuse(secImport, i.off, "the mutable global %s.%s is imported; its state would not be the module's own", clip(i.module), clip(i.name))
		}
	}
	for _, e := range s.exports {
		if len(e.name) >= len(Reserved) && e.name[:len(Reserved)] == Reserved {
			return refuse(secExport, e.off, "the export %q begins with %s, which is reserved for the rewriter; was it rewritten before? Load the original", clip(e.name), Reserved)
		}
	}
	if s.tags > 0 {
		return refuse(secTag, s.at[secTag].off, "exceptions are declared%s", noExceptions)
	}
	if s.start.set {
		if t := s.types[s.funcs[s.start.index]]; len(t.params)+len(t.results) > 0 {
			return refuse(secStart, s.start.off, "a start function with parameters or results")
		}
	}
	if err := s.admitMemories(l); err != nil {
		return err
	}
	return s.admitTables(l)
}

func (s *source) admitMemories(l Limits) error {
	if len(s.memories) > 1 {
		return refuse(secMemory, s.memories[1].off, "%d memories; compile for one", len(s.memories))
	}
	for _, m := range s.memories {
		switch {
		case m.wide:
			return refuse(secMemory, m.off, "a 64-bit memory; compile for wasm32")
		case m.shared:
			return refuse(secMemory, m.off, "a shared memory; compile without threads")
		case m.max > 1<<16:
			return refuse(secMemory, m.off, "a memory of at most %d pages; there are 65536 at most", m.max)
		case m.min > uint64(l.Memory):
			return refuse(secMemory, m.off, "the memory begins with %d pages (%s); the limit is %d (%s): raise the function's memory limit or compile for less",
				m.min, mib(m.min), l.Memory, mib(uint64(l.Memory)))
		}
	}
	return nil
}

func mib(pages uint64) string { return fmt.Sprintf("%.4g MiB", float64(pages)/16) }

func (s *source) admitTables(l Limits) error {
	if len(s.tables) > maxTables {
		return refuse(secTable, s.tables[maxTables].off, "%d tables; at most %d are taken", len(s.tables), maxTables)
	}
	for _, t := range s.tables {
		switch {
		case t.wide:
			return refuse(secTable, t.off, "a 64-bit table; compile for wasm32")
		case t.shared:
			return refuse(secTable, t.off, "a shared table; compile without threads")
		case t.min > uint64(l.Table):
			return refuse(secTable, t.off, "a table begins with %d elements; the limit is %d", t.min, l.Table)
		}
	}
	return nil
}
