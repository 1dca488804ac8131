// What a page asks of a folder of plain files: in the making.

export const statically = { static: true };
