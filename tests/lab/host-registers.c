/* Lets user-mode-linux 6.1 run on processors with AMX.
 *
 * The kernel saves and restores the registers of its processes with ptrace(2), in a buffer for registers up to
 * AVX-512. A host with more registers fills this buffer but accepts only a complete set, so the first process of the
 * lab dies with "ptrace set fp regs failed, errno = 14" (fixed in Linux 6.4 by "um: Fix FP register size for
 * XSTATE/XSAVE"). This preloaded library completes the set. The other registers stay in their initial state, since no
 * program in the lab requests permission to use AMX.
 *
 * Layout of the registers: Intel SDM volume 1, section 13.4 (standard format).
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

/* Maximum size of a complete set. With AMX it is 11008. */
#define ALL_MAX_BYTES 16384
/* Offset of XSTATE_BV, which has a bit for each component that is not in its initial state. */
#define COMPONENTS_OFFSET 512
/* Leaf of CPUID with the offset and size of each component, except the first two, x87 and SSE. */
#define XSAVE_LEAF 0xd

static long (*next_ptrace)(enum __ptrace_request, ...);

__attribute__((constructor)) static void find_next(void) {
  *(void **)&next_ptrace = dlsym(RTLD_NEXT, "ptrace");
  if (!next_ptrace)
    abort();
}

/* The components within the first `bytes`. */
static uint64_t components_within(size_t bytes) {
  uint64_t components = 3;
  for (unsigned component = 2; component < 63; component++) {
    unsigned size, offset, ecx, edx;
    if (__get_cpuid_count(XSAVE_LEAF, component, &size, &offset, &ecx, &edx) && size && offset + size <= bytes)
      components |= UINT64_C(1) << component;
  }
  return components;
}

static long set_registers(pid_t pid, struct iovec *part) {
  static unsigned char registers[ALL_MAX_BYTES];
  static uint64_t part_components;
  struct iovec all = {registers, sizeof registers};
  /* This call returns the size of a complete set. */
  long outcome = next_ptrace(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &all);
  if (outcome < 0)
    return outcome;
  if (all.iov_len <= part->iov_len)
    return next_ptrace(PTRACE_SETREGSET, pid, NT_X86_XSTATE, part);
  if (!part_components)
    part_components = components_within(part->iov_len);
  memcpy(registers, part->iov_base, part->iov_len);
  uint64_t components;
  memcpy(&components, registers + COMPONENTS_OFFSET, sizeof components);
  components &= part_components;
  memcpy(registers + COMPONENTS_OFFSET, &components, sizeof components);
  return next_ptrace(PTRACE_SETREGSET, pid, NT_X86_XSTATE, &all);
}

long ptrace(enum __ptrace_request request, ...) {
  va_list arguments;
  va_start(arguments, request);
  pid_t pid = va_arg(arguments, pid_t);
  void *address = va_arg(arguments, void *), *data = va_arg(arguments, void *);
  va_end(arguments);
  if (request == PTRACE_SETREGSET && address == (void *)NT_X86_XSTATE)
    return set_registers(pid, data);
  return next_ptrace(request, pid, address, data);
}
