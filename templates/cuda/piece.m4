// What the kernels that load weights are told: runtime/piece.h's tables.
struct Piece { MOE_PIECE };
enum Kind { MOE_KINDS };
enum { ROOM = MOE_ROOM };
