// playwright's types name these of the DOM's, which nothing here has.
type Node = object;
type HTMLElement = object;
type SVGElement = object;
type HTMLElementTagNameMap = object;
