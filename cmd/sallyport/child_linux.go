package main

import "syscall"

// attributes have the command asked to end when we are killed: nobody would renew its
// secrets, or start it again.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} }
