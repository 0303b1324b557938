/* Which instructions of which kernels were executed: added to a file at the end of the process. */
#ifndef VGPU_COVERAGE_H
#define VGPU_COVERAGE_H

namespace vgpu
{

void coverage_write();

} // namespace vgpu
#endif
