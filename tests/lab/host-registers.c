/* Lets user-mode-linux 6.1 run on processors with AMX.
 *
 * It saves and restores the registers of its processes with ptrace(2), and knows those up to
 * AVX-512. A host that has more gives it that part but takes back only the whole, so that the first
 * process of the lab dies with "ptrace set fp regs failed, errno = 14" (mended in Linux 6.4 by "um:
 * Fix FP register size for XSTATE/XSAVE"). This library, preloaded, makes the part a whole again. The
 * rest stays in its initial state: nothing in the lab asks the kernel for leave to use AMX.
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

/* More than any processor has: with AMX it is 11008. */
#define WHOLE_MAX_BYTES 16384
/* Where the header says, a bit for each component, which are not in their initial state. */
#define COMPONENTS_OFFSET 512
/* The leaf of CPUID that tells where each component is; the first two are x87 and SSE. */
#define XSAVE_LEAF 0xd

static long (*next_ptrace)(enum __ptrace_request, ...);

__attribute__((constructor)) static void find_next(void) {
  *(void **)&next_ptrace = dlsym(RTLD_NEXT, "ptrace");
  if (!next_ptrace)
    abort();
}

/* The components that lie within the first `bytes`. */
static uint64_t components_within(size_t bytes) {
  uint64_t components = 3;
  for (unsigned component = 2; component < 63; component++) {
    unsigned size, offset, ecx, edx;
    if (__get_cpuid_count(XSAVE_LEAF, component, &size, &offset, &ecx, &edx) && size && offset + size <= bytes)
      components |= UINT64_C(1) << component;
  }
  return components;
}

static long set_registers(pid_t pid, struct iovec *known) {
  static unsigned char whole[WHOLE_MAX_BYTES];
  static uint64_t known_components;
  struct iovec all = {whole, sizeof whole};
  /* Only to learn the size. */
  long outcome = next_ptrace(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &all);
  if (outcome < 0)
    return outcome;
  if (all.iov_len <= known->iov_len)
    return next_ptrace(PTRACE_SETREGSET, pid, NT_X86_XSTATE, known);
  if (!known_components)
    known_components = components_within(known->iov_len);
  memcpy(whole, known->iov_base, known->iov_len);
  uint64_t components;
  memcpy(&components, whole + COMPONENTS_OFFSET, sizeof components);
  components &= known_components;
  memcpy(whole + COMPONENTS_OFFSET, &components, sizeof components);
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
