#include "residency.h"

static int64_t at_most(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t residency_reserve(int64_t card_bytes)
{
    return at_most(card_bytes / 16, (int64_t)512 << 20);
}

int64_t residency_ring(int64_t card_bytes)
{
    return at_most(card_bytes / 8, (int64_t)1 << 30);
}

residency residency_of(int64_t weight_bytes, int64_t room, int64_t ring)
{
    if (weight_bytes <= room) return (residency){.resident = weight_bytes};
    const int64_t resident = room > ring ? room - ring : 0;
    return (residency){.resident = at_most(resident, weight_bytes), .streamed = weight_bytes - at_most(resident, weight_bytes)};
}
