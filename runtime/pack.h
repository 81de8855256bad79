/* Repacks: the orders in which targets read a weight matrix. The same bits in another order.
 *
 * Panels, for the CPU. Rows go in groups of PANEL_ROWS, the last one filled up with zero rows; a group's
 * panel is as long as its rows together. Along a panel come the blocks, along a block its fields, along a
 * field its units (WTYPES), each unit once for every row:
 *
 *         unit 0 of rows 0..7, unit 1 of rows 0..7, ...
 *
 * So what lies in a row at byte `at`, a multiple of its unit u within its field, lies in the panel at
 * PANEL_ROWS times the field's place in the row, plus (unit's number * PANEL_ROWS + row) * u. One vector load
 * of 8 * 4 bytes gets the codes of 4 neighbouring values of all 8 rows, one of 8 * 2 their scales.
 *
 * Types of one value a block (F32, F16, BF16) follow the same rule, their unit being one value.
 *
 * Split rows, for CUDA. Rows one after the other; of each row first the first field of all its blocks, then
 * the second of all, ..., every field's plane filled up with zeros to SPLIT_ALIGN: so threads read codes by
 * aligned loads of 16 bytes. */
#ifndef MOEC_PACK_H
#define MOEC_PACK_H
#include "ir/types.h"

#define PANEL_ROWS 8

/* Bytes of the panels of rows x cols values; 0 where a row is not whole blocks, or on overflow. */
u64 pack_panel_bytes(Wtype t, u64 rows, u64 cols);

/* src: rows in file order. dst: pack_panel_bytes, which must not be 0, apart from src. Groups are
 * independent: a range of rows that starts at a multiple of PANEL_ROWS can be packed on its own, to its own
 * place. */
void pack_panel(Wtype t, const u8 *src, u8 *dst, u64 rows, u64 cols);

#define SPLIT_ALIGN 16

/* Bytes of one split row; 0 where it is not whole blocks, or on overflow. */
u64 pack_split_bytes(Wtype t, u64 cols);

/* src: rows in file order. dst: rows * pack_split_bytes, which must not be 0, apart from src. */
void pack_split(Wtype t, const u8 *src, u8 *dst, u64 rows, u64 cols);

#endif
