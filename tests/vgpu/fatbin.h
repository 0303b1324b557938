/* The PTX that nvcc put into an executable. */
#ifndef VGPU_FATBIN_H
#define VGPU_FATBIN_H

#include <string>

namespace vgpu
{

/* PTX text of the image that suits compute capability `arch` (80 for 8.0) best: the newest that is not newer; when all
 * are newer, the oldest. wrapper is what __cudaRegisterFatBinary gets. Empty and *why set when there is none. */
std::string fatbin_ptx(const void *wrapper, unsigned arch, unsigned *found, std::string *why);

} // namespace vgpu
#endif
