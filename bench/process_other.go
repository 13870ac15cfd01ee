//go:build !linux

package main

import (
	"errors"
	"os/exec"
	"runtime"
	"time"
)

// errMeasure says why nothing is measured here.
var errMeasure = errors.New("the comparison needs Linux: it pins processes to cores and reads /proc")

func serverAndLoad() (server, load []int, err error) { return nil, nil, errMeasure }
func startPinned(cmd *exec.Cmd, _ []int) error       { return cmd.Start() }
func endGroup(int)                                   {}
func processorTime(int) (time.Duration, error)       { return 0, errMeasure }
func residentBytes(int) (int64, error)               { return 0, errMeasure }
func descriptors(int) (int, error)                   { return 0, errMeasure }
func raiseDescriptors()                              {}
func maxDescriptors() int                            { return 1024 }
func sleepUntil(t time.Time)                         { time.Sleep(time.Until(t)) }
func kernel() string                                 { return runtime.GOOS }
